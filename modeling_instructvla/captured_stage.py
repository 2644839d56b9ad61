"""A function of tensors as CUDA graphs, one per shape of its inputs: launched as one, however many kernels it has."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

WARM_UPS = 3  # runs before a capture, in which libraries choose their kernels and take their memory
CAPTURING = threading.Lock()  # one capture at a time in this process

Tensors = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Recording:
    """A captured graph with the tensors that it reads and writes."""

    graph: "torch.cuda.CUDAGraph"
    inputs: Tensors
    output: torch.Tensor

    def replay(self, given: Tensors) -> torch.Tensor:
        """The output for these inputs, valid until the next replay."""
        for mine, new in zip(self.inputs, given, strict=True):
            if mine is not None and mine is not new:
                mine.copy_(new, non_blocking=True)
        self.graph.replay()
        return self.output


def record(function: Callable[..., torch.Tensor], given: Tensors, pool: Any = None, **fixed: Hashable) -> Recording:
    """Capture the function's kernels; it must not look at data, nor wait for the device. Other threads may work on the
    device meanwhile.

    Args:
        pool: of memory, from `torch.cuda.graph_pool_handle`, that graphs of which one runs at a time may share: the
            output of one is then valid until any of them is replayed.
    """
    inputs = tuple(None if tensor is None else tensor.clone() for tensor in given)
    with CAPTURING:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*inputs, **fixed)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = function(*inputs, **fixed)
    return Recording(graph, inputs, output)


class CapturedStage:
    """The function, replayed from a graph where its shapes were seen before, and captured where not.

    Args:
        function: (tensors or None, …, keywords that can be hashed) → tensor.
        name: for `on_new`.
        on_new: (name, shapes), called before a shape is met for the first time.
        recorder: `record` for a CUDA device; None calls the function itself, so that shapes are only counted.
    """

    def __init__(
        self,
        function: Callable[..., torch.Tensor],
        name: str,
        on_new: Callable[[str, tuple], None],
        recorder: Callable[..., Recording] | None,
    ):
        self.function, self.name, self.on_new, self.recorder = function, name, on_new, recorder
        self.recordings: dict[Hashable, Recording | None] = {}

    def __call__(self, *given: torch.Tensor | None, **fixed: Hashable) -> torch.Tensor:
        shapes = tuple(None if tensor is None else (tuple(tensor.shape), tensor.dtype) for tensor in given)
        key = (shapes, tuple(sorted(fixed.items())))
        if key not in self.recordings:
            self.on_new(self.name, shapes)
            self.recordings[key] = self.recorder and self.recorder(self.function, given, **fixed)
        recording = self.recordings[key]
        return self.function(*given, **fixed) if recording is None else recording.replay(given)
