"""Claims about weights written shard by shard."""

import json

import pytest
import torch
from safetensors.torch import load_file

from instructvla.safetensors_folder import INDEX
from instructvla.streamed_checkpoint import choose_dtype, write_shards

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


@pytest.mark.parametrize("size", ["big", "-5GB", "0GB", "5"])
def test_a_shard_size_that_is_no_size_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=f"--max-shard-size {size} is no size"):
        write(tmp_path, size)


def test_tensors_that_share_memory_are_each_written_whole(tmp_path):
    table = torch.randn(4, 3)
    sizes = {"input": table, "output": table}
    write_shards(tmp_path, sizes, lambda names: {name: table for name in names}, "1MB")
    written = load_file(tmp_path / "model.safetensors")
    assert torch.equal(written["input"], table) and torch.equal(written["output"], table)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_tensor_is_refused_by_its_name(tmp_path, value):
    damaged = {"good": torch.zeros(3), "bad": torch.tensor([1.0, value])}
    with pytest.raises(ValueError, match="bad holds NaN or infinite"):
        write_shards(tmp_path, damaged, lambda names: damaged, "1MB")


def test_large_finite_numbers_are_not_taken_for_damage(tmp_path):
    large = {"a": torch.full((4,), 3e38)}
    write_shards(tmp_path, large, lambda names: large, "1MB")


def test_the_dtype_is_the_one_asked_for_the_default_or_the_widest():
    dtypes = {"a": torch.bfloat16, "b": torch.float32}
    assert choose_dtype("float16", dtypes) == torch.float16
    assert choose_dtype(None, dtypes, default=torch.bfloat16) == torch.bfloat16
    assert choose_dtype(None, dtypes) == torch.float32


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.float64])
def test_tensors_of_another_dtype_are_refused_by_their_name(dtype):
    with pytest.raises(ValueError, match=f"a is {dtype}"):
        choose_dtype(None, {"a": dtype, "b": torch.float32})
