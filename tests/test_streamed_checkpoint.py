"""Claims about weights written shard by shard."""

import json

import pytest
import torch
from safetensors.torch import load_file

from instructvla.streamed_checkpoint import INDEX, write_shards

TENSORS = {f"layer.{index}": torch.full((250,), float(index)) for index in range(8)}  # 1,000 bytes each
SIZES = {name: tensor.to("meta") for name, tensor in TENSORS.items()}


def write(folder, max_shard_size: str) -> list[list[str]]:
    """Writes TENSORS and returns which names were loaded together."""
    asked = []

    def load(names):
        asked.append(names)
        return {name: TENSORS[name] for name in names}

    write_shards(folder, SIZES, load, max_shard_size)
    return asked


def test_one_file_has_no_index(tmp_path):
    write(tmp_path, "1MB")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert load_file(tmp_path / "model.safetensors").keys() == TENSORS.keys()


def test_no_more_than_a_shard_is_loaded_at_once_and_the_index_finds_every_tensor(tmp_path):
    asked = write(tmp_path, "3KB")
    assert [len(names) for names in asked] == [3, 3, 2]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 8000
    for name, file_name in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file_name)[name], TENSORS[name])


def test_a_file_that_cannot_be_written_is_an_os_error_with_its_name(tmp_path):
    with pytest.raises(OSError, match="model.safetensors"):
        write(tmp_path / "none", "1MB")


def test_a_shard_size_that_is_no_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'big' is no size such as 1GB"):
        write(tmp_path, "big")
