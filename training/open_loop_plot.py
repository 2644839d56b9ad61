"""The overlay plot of the open-loop probe: predicted against recorded action chunks, a panel per dimension."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from instructvla.evaluation.one_picture import save_picture
from instructvla.processing import InstructVLAProcessor
from instructvla.training.data.mixture import FrameSample
from instructvla.training.open_loop import OpenLoopProbe, OpenLoopResult

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RECORDED, PREDICTED, RANGE = "#222222", "#d1495b", "#eef1f5"
CAPTION_WIDTH = 60  # characters per column of panels
GAP = 3  # steps between two chunks
LABELS = ("range q01 to q99", "recorded", "predicted (pale: after the episode's end)")
NO_LABELS = (None, None, None)

Pair = tuple[FrameSample, np.ndarray]


def plot_overlay(path: str | Path, probe: OpenLoopProbe, result: OpenLoopResult, *, chunks: int = 4, title: str = ""):
    """Write a picture of the probe's first chunks, side by side in each panel, with the range q01 to q99 shaded.

    Args:
        path: of the PNG, or of another format that matplotlib knows by its ending.
        probe: whose result it is.
        result: of the main process, whose own chunks include the first ones.
        chunks: how many of them.
        title: above the panels, e.g. the training step.

    Raises:
        ValueError: matplotlib is not installed, there is nothing to draw, or the file can't be written.
    """
    numbers = sorted(result.predictions)[:chunks]
    if not numbers:
        raise ValueError(f"there is nothing to draw: {len(result.predictions)} predictions, chunks={chunks}")
    pairs = [(probe.chunks[number], result.predictions[number]) for number in numbers]
    save_picture(draw_overlay(pairs, probe.processor, title), Path(path))


def draw_overlay(pairs: Sequence[Pair], processor: InstructVLAProcessor, title: str = "") -> "Figure":
    """The figure of `plot_overlay`, of frames with (horizon, action_dim) predictions in physical units."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("the overlay plot needs matplotlib: pip install 'instructvla[eval]'") from error
    columns = 2 if processor.action_dim <= 8 else 4
    rows = -(-processor.action_dim // columns)
    captions = "\n".join(_caption(*item, columns * CAPTION_WIDTH) for item in enumerate(frame for frame, _ in pairs))
    height = 1.75 * rows + 0.19 * (captions.count("\n") + 1) + 0.9
    figure = Figure(figsize=(5.2 * columns if columns == 2 else 4.2 * columns, height), dpi=100, layout="constrained")
    panels, foot = figure.subfigures(2, 1, height_ratios=(1.75 * rows + 0.9, 0.19 * (captions.count("\n") + 1)))
    axes = panels.subplots(rows, columns, sharex=True, squeeze=False)
    for dim, panel in enumerate(axes.flat[: processor.action_dim]):
        _draw_dimension(panel, dim, pairs, processor)
    for panel in axes.flat[processor.action_dim :]:
        panel.set_axis_off()
    for column in range(columns):
        lowest = axes[(processor.action_dim - 1 - column) // columns, column]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel(f"chunk (each {len(pairs[0][1])} steps{_rate(pairs, processor)})", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    panels.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=9, frameon=False)
    panels.suptitle(title or "Open loop: predicted against recorded actions", fontsize=12, x=0.01, ha="left")
    foot.text(0.01, 0.98, captions, fontsize=8, va="top", parse_math=False)
    return figure


def _draw_dimension(panel: "Axes", dim: int, pairs: Sequence[Pair], processor: InstructVLAProcessor) -> None:
    is_gripper = dim in processor.gripper_dims
    bounds = [0.0, 1.0] if is_gripper else []
    style = {"drawstyle": "steps-mid" if is_gripper else "default", "linewidth": 1.4, "markersize": 4}
    for number, (frame, predicted) in enumerate(pairs):
        start, steps = number * (len(predicted) + GAP), np.arange(len(predicted))
        statistics = processor.statistics[frame.dataset]["action"]
        low, high = statistics["q01"][dim], statistics["q99"][dim]
        recorded = frame.actions[frame.action_mask, dim]
        known, labels = len(recorded), LABELS if number == 0 else NO_LABELS
        panel.fill_between([start, start + len(predicted) - 1], low, high, color=RANGE, label=labels[0])
        panel.plot(start + steps[:known], recorded, ".-", color=RECORDED, label=labels[1], **style)
        panel.plot(start + steps[:known], predicted[:known, dim], ".-", color=PREDICTED, label=labels[2], **style)
        panel.plot(start + steps[known - 1 :], predicted[known - 1 :, dim], color=PREDICTED, alpha=0.35, **style)
        bounds += [low, high, recorded.min(), recorded.max()]
    margin = 0.08 * (max(bounds) - min(bounds)) or 0.01
    panel.set_ylim(min(bounds) - margin, max(bounds) + margin)
    panel.set_title(processor.action_names[dim], fontsize=10, parse_math=False)
    panel.set_ylabel(textwrap.fill(processor.action_units[dim], 16), fontsize=8, parse_math=False)
    middles = [number * (len(pairs[0][1]) + GAP) + (len(pairs[0][1]) - 1) / 2 for number in range(len(pairs))]
    panel.set_xticks(middles, [_letter(number) for number in range(len(pairs))])
    panel.tick_params(labelsize=8, bottom=False)
    panel.spines[["top", "right"]].set_visible(False)


def _letter(number: int) -> str:
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _caption(number: int, frame: FrameSample, width: int) -> str:
    place = f"{_letter(number)}   {frame.dataset}/{frame.episode_id}, frame {frame.frame_index}"
    text = f"{place}: “{' '.join(frame.instruction.split())}”"
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _rate(pairs: Sequence[Pair], processor: InstructVLAProcessor) -> str:
    rates = {processor.control_rate_hz.get(frame.dataset, frame.control_rate_hz) for frame, _ in pairs}
    return f" at {rates.pop():g} Hz" if len(rates) == 1 else ""
