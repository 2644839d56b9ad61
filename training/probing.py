"""What probes of a model in training share: leaving no trace in it, and dividing batches among ranks."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from transformers import PreTrainedModel

Batch = TypeVar("Batch")


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode without gradients; every module's mode and torch's random state come back as they were."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def rank_share(batches: Sequence[Batch], rank: int = 0, world_size: int = 1) -> list[tuple[Batch, bool]]:
    """This rank's batches, and whether each counts.

    All ranks get the same number of them, as sharded models (FSDP, ZeRO-3) run in step: who has none left repeats one
    that does not count. What is in a batch never depends on the number of ranks.

    Raises:
        ValueError: `rank` outside 0 to world_size − 1.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; with world_size {world_size} it is 0 to {world_size - 1}")
    turns = range(rank, math.ceil(len(batches) / world_size) * world_size, world_size)
    return [(batches[turn % len(batches)], turn < len(batches)) for turn in turns]


def batched_numbers(numbers: Sequence[int], batch_size: int) -> list[list[int]]:
    """The numbers in batches, the last one smaller.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    return [list(numbers[start : start + batch_size]) for start in range(0, len(numbers), batch_size)]


def require_counts(least: int, **counts: int) -> None:
    """Refuse counts that are no integers of at least `least` (ValueError)."""
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise ValueError(f"{name} is {count!r}; give an integer of at least {least}")
