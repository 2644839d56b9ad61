"""A model where and as it shall run: a checkpoint, or one without training."""

from typing import Any

import torch

from instructvla.evaluation.doctor import choose_device
from instructvla.evaluation.one_picture import load_model

UNTRAINED = {"nano": "the nano model", "2b": "the released size"}


def load_for_inference(
    name: str, revision: str | None = None, device: str | None = None, dtype: torch.dtype | None = None
) -> Any:
    """A model in evaluation mode, on CUDA where there is one; there, it also resizes its images itself.

    Args:
        name: folder or Hub repository, or one of `UNTRAINED`, with random weights.
        revision: of the repository.
        device: another one.
        dtype: default: float32 on a CPU; elsewhere the checkpoint's own, and bfloat16 for a model without one.

    Raises:
        ValueError: no such model or device.
    """
    place = choose_device(device)
    wanted = torch.float32 if dtype is None and place.type == "cpu" else dtype
    if name == "2b":
        from instructvla.full_size import untrained_2b

        model = untrained_2b(place, wanted or torch.bfloat16)
    else:
        model = load_model(None if name == "nano" else name, revision).to(place)
        model = model if wanted is None else model.to(wanted)
    if place.type != "cpu":
        model.processor.pixel_device = place
    return model
