"""timm's DINOv2 in our terms: sizes read off its files, positions resampled as timm does, other models refused."""

import json
import shutil

import pytest
import timm
import torch

from instructvla.configuration_sections import ActionVisionConfig
from instructvla.dinov2_vision import named_architecture, read_dinov2, vision_fields
from tests.tiny_sources import DINO, DINO_NAME, write_dinov2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dino")
    write_dinov2(path)
    return path


def test_sizes_are_read_off_timms_files(folder):
    assert read_dinov2(str(folder)).action_vision_config == {
        "embed_dim": DINO["embed_dim"],
        "depth": DINO["depth"],
        "num_heads": DINO["num_heads"],
        "mlp_ratio": 4.0,
        "patch_size": 14,
        "num_register_tokens": 4,
        "layer_norm_eps": 1e-6,
    }


def test_large_model_of_the_paper_is_our_default_by_its_timm_name():
    fields = vision_fields(named_architecture("vit_large_patch14_reg4_dinov2.lvd142m"))
    assert ActionVisionConfig(**fields) == ActionVisionConfig()


@pytest.mark.parametrize("image_size", [28, 56, 84])
def test_positions_are_resampled_as_timm_resamples_them(folder, image_size):
    dino = read_dinov2(str(folder))
    own = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=image_size)
    tensors = dino.load(dino.weights.shapes, image_size, 14)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == dino.shapes(image_size, 14)
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensors[name], tensor), name


def test_reading_leaves_the_global_random_state(folder):
    state = torch.get_rng_state()
    read_dinov2(str(folder))
    assert torch.equal(state, torch.get_rng_state())


OTHER_MODELS = {
    "vit_small_patch14_dinov2": {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 28},  # no registers
    "vit_giant_patch14_reg4_dinov2": {"embed_dim": 48, "depth": 1, "num_heads": 2, "img_size": 28},  # gated MLP
    "vit_base_patch16_clip_224": {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32},
}


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_other_architectures_are_refused(tmp_path, name):
    write_dinov2(tmp_path, name, **OTHER_MODELS[name])
    with pytest.raises(ValueError, match=f"is {name}, not a DINOv2 with registers; give one such as"):
        read_dinov2(str(tmp_path))


def test_other_normalisation_of_the_image_is_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not a DINOv2 with registers"):
        read_dinov2(str(tmp_path))


NAMES = {
    "resnet18": "'resnet18' is resnet18, not a DINOv2 with registers",
    "vit_large_patch14_reg_dinov2": "no model of that name. Did you mean 'vit_large_patch14_reg4_dinov2'",
    "vit_large_patch14_reg4_dinov2.in1k": "no weights called 'vit_large_patch14_reg4_dinov2.in1k'",
    "/nowhere/dino": "is no folder here, and no Hub repository",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_dinov2_are_refused_without_a_download(name):
    with pytest.raises(ValueError, match=NAMES[name]):
        read_dinov2(name)


NOT_TIMMS = {
    "{}": "is not in timm's form",
    '{"model_type": "dinov2_with_registers"}': "is not in timm's form",
    '{"architecture": 3}': "is not in timm's form",
    '{"architecture": "resnet18", "model_args": []}': "is not in timm's form",
    "[]": "must hold a JSON object, not list",
    "{": "can't be read as JSON",
}


@pytest.mark.parametrize("config", NOT_TIMMS)
def test_folder_that_is_not_timms_is_refused(tmp_path, config):
    with pytest.raises(ValueError, match="has no config.json"):
        read_dinov2(str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=NOT_TIMMS[config]):
        read_dinov2(str(tmp_path))


@pytest.mark.parametrize("depth", [3, 5])
def test_weights_of_another_depth_than_their_architecture_are_refused(folder, tmp_path, depth):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"]["depth"] = depth
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"have 4 blocks, but their architecture has {depth}; copy the config.json"):
        read_dinov2(str(tmp_path))


def test_timm_name_reads_the_repository_that_timm_publishes(tmp_path, monkeypatch):
    write_dinov2(tmp_path, embed_dim=32, depth=12, num_heads=2, img_size=28)
    asked = []

    def download(source, patterns):
        asked.append((source, {"config.json", "*.safetensors"} <= set(patterns)))
        return tmp_path

    monkeypatch.setattr("instructvla.dinov2_vision.local_folder", download)
    assert read_dinov2(DINO_NAME).weights.folder == tmp_path
    assert asked == [(f"timm/{DINO_NAME}.lvd142m", True)]
