"""Checkpoints written shard by shard from tensors read when they are needed: memory holds one shard at a time."""

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers.utils import logging

from instructvla.checkpoint_instructvla import refuse_adapter_folder, staged_checkpoint
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.safetensors_folder import INDEX

DTYPES = ("float32", "bfloat16", "float16")
SIZE = re.compile(r"0*[1-9]\d*(KB|MB|GB|TB)")
Loader = Callable[[list[str]], dict[str, torch.Tensor]]


def meta_model(config: InstructVLAConfig, dtype: torch.dtype) -> InstructVLAForConditionalGeneration:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return InstructVLAForConditionalGeneration(config).to(dtype)


def choose_dtype(
    wanted: str | None, dtypes: Mapping[str, torch.dtype], default: torch.dtype | None = None
) -> torch.dtype:
    """The dtype asked for by name, else `default`, else the widest of the sources'.

    Args:
        wanted: one of `DTYPES`, or None.
        dtypes: of the source tensors, by name.

    Raises:
        ValueError: for another dtype, asked for or in the sources.
    """
    if wanted is not None and wanted not in DTYPES:
        raise ValueError(f"--dtype is {wanted!r}, but it must be one of {', '.join(DTYPES)}.")
    for name, dtype in dtypes.items():
        if str(dtype).removeprefix("torch.") not in DTYPES:
            raise ValueError(f"{name} is {dtype}, but weights must be {', '.join(DTYPES)}; cast or dequantise it.")
    return getattr(torch, wanted) if wanted else default or reduce(torch.promote_types, dtypes.values())


def write_streamed(
    model: InstructVLAForConditionalGeneration,
    load: Loader,
    output: Path,
    *,
    sources: Collection[Path],
    reports: Mapping[str, Any],
    max_shard_size: str,
    allow_no_statistics: bool = False,
) -> None:
    """Write a whole checkpoint folder; whatever interrupts it, nothing that loads is left there.

    Args:
        model: on the meta device, with its processor.
        load: the weights of some names, contiguous, on the CPU and in the model's dtype.
        output: folder; a checkpoint in it is replaced.
        sources: folders that must not be written over.
        reports: file name → what the file shall hold as JSON.
        max_shard_size: such as "1GB"; a larger tensor has a shard of its own.
        allow_no_statistics: of the processor.

    Raises:
        ValueError: a folder that holds the sources, a disk that is full, or a size that is none.
    """
    if output.resolve() in [source.resolve() for source in sources]:
        raise ValueError(f"--output {output} holds the files that the checkpoint is made from; give another folder.")
    refuse_adapter_folder(output)
    weights = model.state_dict()
    require_space(output, sum(tensor.numel() * tensor.itemsize for tensor in weights.values()))
    try:
        with staged_checkpoint(output) as staging:
            with no_progress_bar():
                model.write_checkpoint(
                    staging, output.resolve().name, allow_no_statistics=allow_no_statistics, state_dict={}
                )
            write_shards(staging, weights, load, max_shard_size)
            for name, report in reports.items():
                (staging / name).write_text(json.dumps(report, indent=2), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--output {output} can't be written: {error}. Nothing was left there.") from error


def write_shards(folder: Path, sizes: Mapping[str, torch.Tensor], load: Loader, max_shard_size: str) -> None:
    """Write model.safetensors, or its shards and their index, into an existing folder.

    Args:
        sizes: name → a tensor of the right shape and dtype, without data.

    Raises:
        OSError: if a file can't be written.
        ValueError: if `max_shard_size` is no size, or a tensor is not finite.
    """
    if not SIZE.fullmatch(max_shard_size):
        raise ValueError(f"--max-shard-size {max_shard_size} is no size; give one such as 1GB or 500MB.")
    plan = split_torch_state_dict_into_shards(dict(sizes), max_shard_size=max_shard_size)
    for file_name, names in tqdm(plan.filename_to_tensors.items(), desc="writing", unit="shard"):
        try:
            save_file(own_memory(load(names)), folder / file_name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{file_name}: {error}") from error
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")


def own_memory(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, once they are known to be finite; those that share memory, as tied weights do, are copied.

    Raises:
        ValueError: for NaN or infinite values.
    """
    own, taken = {}, set()
    for name, tensor in tensors.items():
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinite values; its source is damaged, take an earlier checkpoint.")
        memory = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return own


def require_space(folder: Path, size: int) -> None:
    """Refuse a folder on a disk with less than `size` bytes free (ValueError)."""
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise ValueError(
            f"--output {folder} needs {size / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB free; free some, or "
            "give another folder."
        )


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """transformers would show a bar for the weights, which are not its to write here."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
