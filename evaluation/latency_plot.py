"""The picture of a latency record: the rates of Table 14 beside the paper's, the stages, and chunks per second."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#23272e", "#e4e7eb"
OURS, PAPER = "#2f6f9f", "#b6bec9"
MODE_COLOURS = {"act": "#2f6f9f", "think": "#c4682c", "mixed": "#6b7a3f"}
BAR = 0.36  # of the distance between two settings

Record = Mapping[str, Any]


def draw_latency(record: Record) -> "Figure":
    """A panel for the settings, one for the stages, and one for the throughput where it was measured.

    Args:
        record: what `instructvla latency --output` writes.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("the plot needs matplotlib: pip install 'instructvla[eval]'") from error
    throughput = record["throughput"]
    figure = Figure(figsize=(15.5 if throughput else 11, 4.3), dpi=110, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, h_pad=0.09)
    panels = figure.subplots(1, 3 if throughput else 2)
    draw_settings(panels[0], record["rows"])
    draw_stages(panels[1], record["stages"])
    if throughput:
        draw_throughput(panels[2], throughput)
    figure.suptitle(described(record), fontsize=11, x=0.01, ha="left", color=INK, parse_math=False)
    return figure


def described(record: Record) -> str:
    """What was measured, in one line."""
    about = record["environment"]
    weights = f"{about['quantized']} weights, " if about["quantized"] else ""
    how = "compiled, " if about["compiled"] else ""
    size = f"{about['parameters'] / 1e6:,.1f} M parameters"
    return f"{record['model']}: {size}, {weights}{about['dtype']}, {how}{about['device']}"


def draw_settings(panel: "Axes", rows: Sequence[Record]) -> None:
    """Actions per second, one action per call."""
    places = range(len(rows))
    for offset, key, colour, label in ((-1, "hz", OURS, "measured"), (1, "paper_a100_hz", PAPER, "paper, A100")):
        rates = [row[key] for row in rows]
        bars = panel.barh([place + offset * BAR / 2 for place in places], rates, BAR, color=colour, label=label)
        panel.bar_label(bars, [f"{rate:.2f}" for rate in rates], padding=4, fontsize=9, color=INK)
    panel.set_yticks(places, [f"{row['setting']}\np50 {row['p50_ms']:,.1f} ms" for row in rows])
    panel.set_xlim(0, 1.16 * max(max(row["hz"], row["paper_a100_hz"]) for row in rows))
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=9, frameon=False)
    finish(panel, "Table 14: actions per second, one per call")


def draw_stages(panel: "Axes", stages: Sequence[Record]) -> None:
    """Milliseconds, and how near each is to the least time that this machine could take."""
    times = [row["ms"] for row in stages]
    bars = panel.barh(range(len(stages)), times, 0.62, color=OURS)
    labels = [
        f"{row['ms']:,.1f} ms" + (f", {row['roofline_share']:.0%} of roofline" if row["gflop"] else "")
        for row in stages
    ]
    panel.bar_label(bars, labels, padding=4, fontsize=9, color=INK)
    panel.set_yticks(range(len(stages)), ["one word" if row["stage"] == "word" else row["stage"] for row in stages])
    panel.set_xlim(0, 1.75 * max(times))
    finish(panel, "Stages of an action")


def finish(panel: "Axes", title: str) -> None:
    """First bar on top, no axes but the names."""
    panel.invert_yaxis()
    panel.set_xticks([])
    panel.tick_params(length=0, labelsize=9, labelcolor=INK)
    panel.spines[:].set_visible(False)
    panel.set_title(title, loc="left", fontsize=10, color=INK)


def draw_throughput(panel: "Axes", points: Sequence[Record]) -> None:
    """Chunks per second by the rows of a call, a line for each mode."""
    for mode in dict.fromkeys(point["mode"] for point in points):
        rows, rates = zip(*[(p["rows"], p["chunks_per_s"]) for p in points if p["mode"] == mode], strict=True)
        panel.plot(rows, rates, "o-", color=MODE_COLOURS[mode], label=mode, linewidth=1.6, markersize=4)
    measured = sorted({point["rows"] for point in points})
    panel.set_xscale("log", base=2)
    panel.set_xticks(measured, [str(number) for number in measured])
    panel.set_xticks([], minor=True)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("rows per call", fontsize=9, color=INK)
    panel.grid(axis="y", color=GRID)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, labelsize=9, labelcolor=INK)
    panel.spines[:].set_visible(False)
    panel.legend(fontsize=9, frameon=False)
    panel.set_title("Chunks per second", loc="left", fontsize=10, color=INK)
