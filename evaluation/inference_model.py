"""A model where and as it shall run: a checkpoint, or one without training."""

from typing import Any

import torch

from instructvla.evaluation.bench import mid_size
from instructvla.evaluation.doctor import choose_device
from instructvla.evaluation.one_picture import load_model
from instructvla.weight_precision import FLOATS, check_precision

UNTRAINED = {"nano": "the nano model", "mid": "the bench's middle size", "2b": "the released size"}


def load_for_inference(
    name: str, revision: str | None = None, device: str | None = None, precision: str | None = None
) -> Any:
    """A model in evaluation mode, on CUDA where there is one; there, it also resizes its images itself.

    Args:
        name: folder or Hub repository, or one of `UNTRAINED`, with random weights.
        revision: of the repository.
        device: another one.
        precision: as of `set_precision`; default: "fp32" on a CPU; elsewhere the checkpoint's own, and bfloat16 for a
            model without one. What 8 bits leave as it is: float32 on a CPU, else bfloat16.

    Raises:
        ValueError: no such model or device, or a precision that the device doesn't have.
    """
    place = choose_device(device)
    if precision is not None:
        check_precision(precision, place)
    wanted = computing_type(precision, place)
    if name == "2b":
        from instructvla.full_size import untrained_2b

        model = untrained_2b(place, wanted or torch.bfloat16)
    elif name == "mid":
        model = mid_size().to(place, wanted or torch.bfloat16)
    else:
        model = load_model(None if name == "nano" else name, revision).to(place)
        model = model if wanted is None else model.to(wanted)
    if precision is not None and precision not in FLOATS:
        model.set_precision(precision)
    if place.type != "cpu":
        model.processor.pixel_device = place
    return model


def computing_type(precision: str | None, place: torch.device) -> torch.dtype | None:
    """Of what is not rounded to 8 bits; None keeps the checkpoint's."""
    if precision in FLOATS:
        return FLOATS[precision]
    if place.type == "cpu":
        return torch.float32
    return None if precision is None else torch.bfloat16
