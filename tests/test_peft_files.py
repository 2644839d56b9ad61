"""PEFT's adapter folders: read and written whole; everything but plain LoRA is refused."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructvla.peft_adapters import expert_adapter, export_peft
from instructvla.peft_files import read_peft_adapter, write_peft_adapter
from tests.lively_experts import lively


@pytest.fixture(scope="module")
def single():
    return lively(1)


def edit_config(folder, **values) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(folder, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_old_pickled_adapters_are_read_without_running_code(tmp_path, single):
    export_peft(single, "action", tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    name = "layers.0.self_attn.q_proj.lora_A"
    expected = tensors[f"base_model.model.model.{name}.weight"]
    assert torch.equal(read_peft_adapter(tmp_path).matrices[name], expected)
    torch.save(tensors | {"code": partial(print)}, tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match="adapter_model.bin is truncated, corrupt or no tensor file"):
        read_peft_adapter(tmp_path)


def test_embeddings_survive_writing(tmp_path, single):
    rows = {name: getattr(single.language_model, name).weight.detach().clone() for name in ("embed_tokens", "lm_head")}
    write_peft_adapter(expert_adapter(single, "action")._replace(embeddings=rows), tmp_path)
    again = read_peft_adapter(tmp_path).embeddings
    assert all(torch.equal(again[name], rows[name]) for name in rows)


NOT_PLAIN_LORA = {
    "use_dora to True": {"use_dora": True},
    "bias to 'all'": {"bias": "all"},
    "rank_pattern to": {"rank_pattern": {"q_proj": 2}},
    "alpha_pattern to": {"alpha_pattern": {"q_proj": 2}},
    "trainable_token_indices to": {"trainable_token_indices": [0]},
    "a_later_variant to 3": {"a_later_variant": 3},
    "init_lora_weights of the adapter is 'pissa'": {"init_lora_weights": "pissa"},
    "peft_type is 'IA3'": {"peft_type": "IA3"},
    "r of the adapter is 0": {"r": 0},
    "lora_alpha of the adapter is '8'": {"lora_alpha": "8"},
    "which does not have its rank, 2": {"r": 2},
}


@pytest.mark.parametrize("message", NOT_PLAIN_LORA)
def test_settings_beyond_plain_lora_are_refused(tmp_path, single, message):
    export_peft(single, "action", tmp_path)
    edit_config(tmp_path, **NOT_PLAIN_LORA[message])
    with pytest.raises(ValueError, match=message):
        read_peft_adapter(tmp_path)


def test_settings_of_a_later_peft_that_are_not_used_do_not_matter(tmp_path, single):
    export_peft(single, "action", tmp_path)
    edit_config(tmp_path, a_later_variant=None, another=False)
    assert read_peft_adapter(tmp_path).config.r == 4


NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
BAD_TENSORS = {
    "holds extra.weight; only LoRA": lambda tensors: tensors.update({"extra.weight": torch.zeros(1)}),
    "lora_A but no layers.0.self_attn.q_proj.lora_B": lambda tensors: tensors.pop(NAME),
    "lora_B holds NaN": lambda tensors: tensors[NAME].fill_(torch.nan),
    "holds no LoRA matrix": lambda tensors: tensors.clear(),
}


@pytest.mark.parametrize("message", BAD_TENSORS)
def test_tensors_beyond_plain_lora_are_refused(tmp_path, single, message):
    export_peft(single, "action", tmp_path)
    edit_tensors(tmp_path, BAD_TENSORS[message])
    with pytest.raises(ValueError, match=message):
        read_peft_adapter(tmp_path)


def test_folders_that_hold_no_adapter_are_refused(tmp_path, single):
    with pytest.raises(ValueError, match="is no PEFT adapter: it has no adapter_config.json"):
        read_peft_adapter(tmp_path)
    export_peft(single, "action", tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match="adapter_model.safetensors is truncated, corrupt"):
        read_peft_adapter(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="but no adapter_model.safetensors"):
        read_peft_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json' can't be read as JSON"):
        read_peft_adapter(tmp_path)
