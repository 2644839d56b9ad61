"""Weights of fewer bits: one precision everywhere, or 8 bits for the language model's linear layers, through torchao.

In an action, words read each of the language model's weights for every token, so there fewer bits save most; adaptation
experts, scale head, vocabulary, vision and action expert keep the model's type. Such a model acts; it is not trained.
"""

from collections.abc import Iterator

import torch
from torch import nn

FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FP8_CAPABILITY = (8, 9)  # of CUDA devices with matrix products in 8-bit floats


def supported_precisions(device: torch.device) -> tuple[str, ...]:
    """What `set_precision` takes on this device, given torchao."""
    has_fp8 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    return (*FLOATS, "int8", *(["fp8"] if has_fp8 else []))


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what a device doesn't have (ValueError), with what it has."""
    supported = supported_precisions(device)
    if precision not in supported:
        raise ValueError(
            f"precision is {precision!r}, but on {describe(device)} it must be one of {', '.join(supported)}."
        )


def stored_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a tensor takes in memory: itself, or of a quantised one its integers and scales."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from stored_tensors(getattr(tensor, name))
    else:
        yield tensor


class PrecisionMixin:
    """The precision of a model's weights.

    Attributes:
        quantized: "int8" or "fp8" once `set_precision` made them so, else None.
    """

    quantized: str | None = None

    def set_precision(self, precision: str):
        """Change the weights in place, on the model's device; returns the model.

        Args:
            precision: "fp32", "bf16" or "fp16" for all weights, as `model.to`; "int8" for the weights of the language
                model's linear layers, one scale per output, computing in the model's type; "fp8" for these weights, and
                what they are multiplied with, in 8-bit floats with one scale per row, which needs a model in bfloat16
                on a device that multiplies them. The matrices of the adaptation experts stay as they are.

        Raises:
            ValueError: a precision that is unknown, or that this device or this model can't have; a model that is
                quantised or compiled already; torchao is not installed.
        """
        check_precision(precision, self.device)
        self.check_not_quantized("given another precision")
        if self.compiled is not None:
            raise ValueError("This model is compiled for its precision; call set_precision before it is compiled.")
        if precision in FLOATS:
            return self.to(FLOATS[precision])
        if precision == "fp8" and self.dtype != torch.bfloat16:
            raise ValueError(f"fp8 needs a model in bfloat16, but it is in {self.dtype}; call set_precision('bf16').")
        self.check_evaluating()
        quantize_linears(self.language_model.layers, precision)
        self.quantized = precision
        return self

    def check_not_quantized(self, doing: str) -> None:
        """Refuse what needs the weights that quantisation has rounded (ValueError)."""
        if self.quantized is not None:
            raise ValueError(
                f"This model's weights are rounded to {self.quantized}, so it can't be {doing}; load it again."
            )

    def train(self, mode: bool = True):
        """As PyTorch's; a quantised model is refused (ValueError)."""
        if mode:
            self.check_not_quantized("trained")
        return super().train(mode)


@torch.no_grad()
def quantize_linears(module: nn.Module, precision: str) -> None:
    """Round the weights of all its linear layers. Inductor's settings, which are the process's, stay as they are."""
    try:
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, Int8WeightOnlyConfig, PerRow
        from torchao.quantization import quantize_ as quantize
    except ImportError as error:
        raise ValueError(
            f"precision {precision!r} needs torchao, which is not installed: pip install torchao"
        ) from error
    configs = {
        "int8": lambda: Int8WeightOnlyConfig(set_inductor_config=False),
        "fp8": lambda: Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False),
    }
    quantize(module, configs[precision]())


def describe(device: torch.device) -> str:
    """A device as messages name it, with the capability that decides about its precisions."""
    if device.type != "cuda":
        return f"a {device.type.upper()} device"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
