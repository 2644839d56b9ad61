"""What a machine can do at best, measured: FLOP/s of matrix products and bytes/s of copies (Williams et al. 2009)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MATMUL_SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


class MatmulPeak:
    """FLOP/s of square matrix products, the yardstick; by default bfloat16 on CUDA and float32 elsewhere."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None):
        self.device = device
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        self.matrices = [torch.rand(side, side, device=device).to(dtype) for side in MATMUL_SIDES[device.type]]

    def measure(self) -> float:
        """Of the best size."""
        return max(2 * len(m) ** 3 / timed(lambda m=m: m @ m, self.device) for m in self.matrices)


def copy_peak(device: torch.device, repeats: int = 3) -> float:
    """Bytes/s of a copy within the device's memory, each byte counted when it is read and when it is written."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return max(2 * source.numel() / timed(lambda: target.copy_(source), device) for _ in range(repeats))


@dataclass(frozen=True)
class Peaks:
    """A machine's best.

    Args:
        flops: per second, of matrix products.
        bytes: per second, of copies.
    """

    flops: float
    bytes: float

    @classmethod
    def measured(cls, device: torch.device, dtype: torch.dtype, repeats: int = 3) -> "Peaks":
        """On this machine, now; the best of some runs."""
        matmul = MatmulPeak(device, dtype)
        return cls(max(matmul.measure() for _ in range(repeats)), copy_peak(device, repeats))

    def seconds(self, flops: float, weights: float) -> float:
        """The least time for so many FLOPs on so many bytes of weights: computing and reading overlap at best."""
        return max(flops / self.flops, weights / self.bytes)
