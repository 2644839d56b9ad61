"""Tensors of a folder with safetensors files; what is missing or broken is named."""

import json

import pytest
import torch

from instructvla.safetensors_folder import SafetensorsFolder, read_weight_map
from tests.tiny_sources import write_weights

TENSORS = {f"layer.{index}": torch.full((index + 1, 2), float(index)).bfloat16() for index in range(5)}


@pytest.mark.parametrize("shards", [1, 2])
def test_one_file_and_shards_read_alike(tmp_path, shards):
    write_weights(tmp_path, TENSORS, shards)
    folder = SafetensorsFolder(tmp_path)
    assert folder.shapes == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    assert set(folder.dtypes.values()) == {torch.bfloat16}
    loaded = folder.load(["layer.3", "layer.0"])
    assert loaded.keys() == {"layer.3", "layer.0"}
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in loaded.items())


def test_only_the_files_of_the_index_are_read(tmp_path):
    write_weights(tmp_path, TENSORS, shards=2)
    (tmp_path / "consolidated.safetensors").write_text("not read")
    assert SafetensorsFolder(tmp_path).shapes.keys() == TENSORS.keys()


def break_shard(folder):
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def truncate(folder):
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


PROBLEMS = {
    r"lacks model-00002-of-00002\.safetensors, which its": lambda folder: (
        folder / "model-00002-of-00002.safetensors"
    ).unlink(),
    r"model-00002-of-00002\.safetensors is truncated or no safetensors file": break_shard,
    r"model-00001-of-00002\.safetensors is truncated or no safetensors file": truncate,
    r"model\.safetensors\.index\.json' must hold a JSON object": lambda folder: (
        folder / "model.safetensors.index.json"
    ).write_text("[]"),
    r"model\.safetensors\.index\.json' has no weight_map of tensor names to files": lambda folder: (
        folder / "model.safetensors.index.json"
    ).write_text('{"weight_map": {"layer.0": 3}}'),
    "has 2 safetensors files but no model.safetensors.index.json": lambda folder: (
        folder / "model.safetensors.index.json"
    ).unlink(),
}


@pytest.mark.parametrize("message", PROBLEMS)
def test_what_is_missing_or_broken_is_named(tmp_path, message):
    write_weights(tmp_path, TENSORS, shards=2)
    PROBLEMS[message](tmp_path)
    with pytest.raises(ValueError, match=message):
        SafetensorsFolder(tmp_path)


def test_weight_map_is_the_index_or_none_without_one(tmp_path):
    assert read_weight_map(tmp_path) is None
    write_weights(tmp_path, TENSORS, shards=2)
    weight_map = read_weight_map(tmp_path)
    assert weight_map.keys() == TENSORS.keys()
    assert set(weight_map.values()) == {f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)}


def test_pickled_weights_are_not_opened(tmp_path):
    with pytest.raises(ValueError, match=r"has no safetensors weights\.$"):
        SafetensorsFolder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Convert pytorch_model\.bin to safetensors first"):
        SafetensorsFolder(tmp_path)
