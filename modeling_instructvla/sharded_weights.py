"""Weights written shard by shard, so that memory holds one shard at a time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from tqdm.auto import tqdm

INDEX = "model.safetensors.index.json"


def write_sharded(
    folder: Path,
    sizes: Mapping[str, torch.Tensor],
    load: Callable[[list[str]], dict[str, torch.Tensor]],
    max_shard_size: str,
) -> None:
    """Write model.safetensors, or its shards and their index.

    Args:
        folder: an existing folder.
        sizes: name → a tensor of the right shape and dtype, without data.
        load: the tensors of some names, contiguous, on the CPU.
        max_shard_size: such as "1GB"; a larger tensor has a shard of its own.

    Raises:
        OSError: if a file can't be written.
        ValueError: if `max_shard_size` is no size.
    """
    try:
        plan = split_torch_state_dict_into_shards(dict(sizes), max_shard_size=max_shard_size)
    except ValueError as error:
        raise ValueError(f"The shard size {max_shard_size!r} is no size such as 1GB or 500MB.") from error
    for file_name, names in tqdm(plan.filename_to_tensors.items(), desc="writing", unit="shard"):
        try:
            save_file(load(names), folder / file_name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{file_name}: {error}") from error
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
