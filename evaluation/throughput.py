"""Action chunks per second of one model, for calls of several rows: acting only, thinking, and both in one call."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from instructvla.evaluation.demo_scene import draw_tabletop_scene

INSTRUCTION = "put the spoon on the towel"
WARM_UP = 2  # calls of each size and mode

THINKING: Mapping[str, Callable[[int], list[bool]]] = {
    "act": lambda rows: [False] * rows,
    "think": lambda rows: [True] * rows,
    "mixed": lambda rows: [row % 2 == 0 for row in range(rows)],
}
"""Which rows of a call think; "mixed": every other."""


@dataclass(frozen=True)
class Throughput:
    """Times of calls of one kind.

    Args:
        rows: chunks per call.
        mode: of `THINKING`.
        milliseconds: of each call, until its actions are on the CPU.
    """

    rows: int
    mode: str
    milliseconds: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        return median(self.milliseconds)

    @property
    def chunks_per_s(self) -> float:
        """Over all calls."""
        return 1000 * self.rows * len(self.milliseconds) / sum(self.milliseconds)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"rows": self.rows, "mode": self.mode, "p50_ms": self.p50_ms, "chunks_per_s": self.chunks_per_s}


def curve_points(batches: Sequence[int]) -> list[tuple[int, str]]:
    """Rows and mode of each kind of call; a single row is not mixed."""
    return [(rows, mode) for mode in THINKING for rows in batches if rows > 1 or mode != "mixed"]


def measure_throughput(
    model: Any, batches: Sequence[int], repeats: int = 10, max_new_tokens: int = 50, bar: Any = None
) -> list[Throughput]:
    """Times of `generate_action` on so many pictures at once, in each mode.

    Args:
        model: in evaluation mode.
        batches: rows per call.
        repeats: measured calls of each size and mode.
        max_new_tokens: longest answer.
        bar: progress, updated at each size and mode.
    """
    found = []
    for rows, mode in curve_points(batches):
        arguments = batch_arguments(model, rows) | {"think": THINKING[mode](rows), "max_new_tokens": max_new_tokens}
        times = []
        for number in range(WARM_UP + repeats):
            generators = [torch.Generator().manual_seed(number * rows + row) for row in range(rows)]
            start = time.perf_counter()
            model.generate_action(**arguments, generator=generators).actions.cpu()
            times.append(1000 * (time.perf_counter() - start))
        found.append(Throughput(rows, mode, tuple(times[WARM_UP:])))
        if bar is not None:
            bar.update()
    return found


def batch_arguments(model: Any, rows: int) -> dict[str, Any]:
    """The drawn tabletop in so many rows, for `generate_action`."""
    scene, processor = draw_tabletop_scene(), model.processor
    images = {camera: scene for camera in processor.cameras} if len(processor.cameras) > 1 else scene
    return {
        "images": [images] * rows,
        "text": [INSTRUCTION] * rows,
        "state": None if processor.state_dim is None else np.zeros((rows, processor.state_dim)),
        "unnorm_key": next(iter(processor.statistics)),
    }


def throughput_table(found: Sequence[Throughput]) -> str:
    """A line per number of rows, and p50 and chunks per second of each mode."""
    modes = list(dict.fromkeys(one.mode for one in found))
    points = {(one.rows, one.mode): one for one in found}
    lines = [f"{'rows':>4}" + "".join(f"{f'{mode}: p50, ms':>18}{'chunks/s':>10}" for mode in modes)]
    for rows in sorted({one.rows for one in found}):
        cells = [points.get((rows, mode)) for mode in modes]
        numbers = [("–", "–") if one is None else (f"{one.p50_ms:.1f}", f"{one.chunks_per_s:.1f}") for one in cells]
        lines.append(f"{rows:>4}" + "".join(f"{time:>18}{rate:>10}" for time, rate in numbers))
    return "\n".join(lines)
