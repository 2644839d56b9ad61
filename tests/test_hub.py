"""Publishing, and loading by repository id without our package, against a local Hub with the real client."""

from collections.abc import Iterator

import pytest
import torch

from tests.hub_server import HubServer, run_with_endpoint

CALL = """
    import numpy as np, torch
    from PIL import Image

    torch.set_num_threads(1)
    IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))

    def act(model):
        noise = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(0))
        out = model.generate_action(IMAGE, "put the spoon on the towel", noise=noise, max_new_tokens=6)
        ids = torch.tensor(out.context.response_ids)
        return {"actions": out.actions, "normalized": out.normalized_actions, "latent": out.latent_actions, "ids": ids}
"""

PUBLISH = (
    CALL
    + """
    from instructvla.nano import untrained_nano

    model = untrained_nano()
    model.push_to_hub("org/nano", max_shard_size="8MB", evaluation={"Tabletop": "12 of 20 episodes"})
    torch.save(act(model), "published.pt")

    from transformers import AutoModel

    def x_limit(model):
        return model.processor.statistics["untrained"]["action"]["q99"][0]

    loaded = AutoModel.from_pretrained("org/nano")
    model.processor.statistics["untrained"]["action"]["q99"][0] = 9.0
    model.push_to_hub("org/nano", revision="other")  # in one file, over shards
    model.push_to_hub("org/nano", max_shard_size="8MB")
    assert x_limit(loaded) == 0.05, "the processor is of another revision than the weights"
    assert x_limit(AutoModel.from_pretrained("org/nano", revision="other")) == 9.0
"""
)

LOAD_WITHOUT_THE_PACKAGE = (
    CALL
    + """
    import sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "instructvla":
                raise ModuleNotFoundError(f"No module named {name!r}")

    sys.meta_path.insert(0, Absent())

    from transformers import AutoModel

    model = AutoModel.from_pretrained("org/nano", trust_remote_code=True)
    torch.save(act(model), "loaded.pt")
    model.save_pretrained("copy")
    copy = AutoModel.from_pretrained("copy", trust_remote_code=True)
    torch.save(act(copy), "copied.pt")
    assert not any(name.split(".")[0] == "instructvla" for name in sys.modules)
"""
)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(token="secret") as server:
        yield server


def test_published_model_loads_by_id_without_the_package_and_gives_bit_equal_actions(hub, tmp_path):
    run_with_endpoint(hub, PUBLISH, tmp_path)
    files = hub.repos["models", "org/nano"].resolve("main").files
    assert set(hub.repos["models", "org/nano"].branches) == {"main", "other"}
    assert {"config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json"} <= set(files)
    assert {"modeling_instructvla.py", "processing_instructvla.py", "action_expert.py"} <= set(files)
    assert sum(name.endswith(".safetensors") for name in files) > 1
    assert "__init__.py" not in files
    other = hub.repos["models", "org/nano"].resolve("other").files
    assert [name for name in other if ".safetensors" in name] == ["model.safetensors"]
    card = files["README.md"].content.decode()
    assert 'from_pretrained("org/nano"' in card
    assert "$" not in card

    run_with_endpoint(hub, LOAD_WITHOUT_THE_PACKAGE, tmp_path)
    published, loaded, copied = (torch.load(tmp_path / f"{name}.pt") for name in ("published", "loaded", "copied"))
    for name in ("latent", "ids", "normalized"):  # the statistics of the last publication differ
        assert torch.equal(loaded[name], published[name]), name
    for name, value in loaded.items():
        assert torch.equal(copied[name], value), name
    assert not [request for request in hub.requests if request.status == 501]
