"""Plots of an analysis, after the paper's Figure 17: shares of the categories, verbs with their nouns, vocabulary."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from instructvla.training.annotation.annotation_census import ALL, COMMANDS, ORIGINAL, Census, Vocabulary
from instructvla.training.annotation.categories import INSTRUCTION_CATEGORIES, QUESTION_CATEGORIES, Category
from instructvla.training.annotation.command_words import Command

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERBS, NOUNS_EACH = 12, 4  # that are told apart
INNER, RING = 0.34, 0.32  # radius of the hole and width of a ring, of the picture's half
FEWEST_DEGREES = 4.0  # of a wedge that has its word
REST = "#e4e7eb"
INK, GRID = "#23272e", "#e4e7eb"
SHARE_COLOURS = {"instructions": "#2f6f9f", "questions": "#c4682c"}
CORPUS_COLOURS = {ORIGINAL: "#8a93a0", COMMANDS: "#2f6f9f", ALL: "#c4682c"}


def plots(census: Census) -> dict[str, "Figure"]:
    """Name → plot, of all that there is something to draw of.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("the plots need matplotlib: pip install 'instructvla[train]'") from error
    drawn: dict[str, Figure] = {}
    if census.instruction_categories or census.question_categories:
        drawn["categories"] = Figure(figsize=(11, 3.4), dpi=110, layout="constrained")
        draw_shares(drawn["categories"], census)
    if corpora := {name: counts for name, counts in census.commands.items() if counts}:
        drawn["verbs_and_nouns"] = Figure(figsize=(5.6 * len(corpora), 5.9), dpi=110, layout="constrained")
        draw_commands(drawn["verbs_and_nouns"], corpora)
    if grown := {name: vocabulary for name, vocabulary in census.vocabularies.items() if vocabulary.tokens}:
        drawn["vocabulary"] = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
        draw_vocabularies(drawn["vocabulary"].subplots(), grown)
    return drawn


def draw_shares(figure: "Figure", census: Census) -> None:
    """Two panels of bars, the most frequent category first."""
    kinds = {
        "instructions": (INSTRUCTION_CATEGORIES, census.instruction_categories),
        "questions": (QUESTION_CATEGORIES, census.question_categories),
    }
    for panel, (kind, (categories, counts)) in zip(figure.subplots(1, 2), kinds.items(), strict=True):
        draw_bars(panel, categories, counts, SHARE_COLOURS[kind])
        panel.set_title(f"{counts.total():,} {kind}", loc="left", fontsize=11, color=INK)


def draw_bars(panel: "Axes", categories: Sequence[Category], counts: Counter[Category], colour: str) -> None:
    """A bar for each category, with its share in percent."""
    ordered = sorted(categories, key=lambda category: counts[category])
    shares = [100 * counts[category] / max(counts.total(), 1) for category in ordered]
    bars = panel.barh(list(map(str, ordered)), shares, color=colour, height=0.68)
    panel.bar_label(bars, [f"{share:.1f} %" for share in shares], padding=4, fontsize=9, color=INK)
    panel.set_xlim(0, 1.18 * max(*shares, 1))
    panel.set_ylim(len(ordered) - len(INSTRUCTION_CATEGORIES) - 0.5, len(ordered) - 0.5)  # bars as thick in both panels
    panel.set_xticks([])
    panel.tick_params(length=0, labelsize=10, labelcolor=INK)
    panel.spines[:].set_visible(False)


def draw_commands(figure: "Figure", corpora: Mapping[str, Counter[Command]]) -> None:
    """A sunburst of each corpus: verbs inside, their nouns outside; the same verb has the same colour in all."""
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97))  # browsers have other fonts: room above the titles
    colours = verb_colours(corpora)
    for panel, (name, counts) in zip(figure.subplots(1, len(corpora), squeeze=False)[0], corpora.items(), strict=True):
        draw_sunburst(panel, counts, colours)
        pairs = f"{len(counts):,} different verb–noun pairs"
        panel.set_title(f"{name}\n{counts.total():,} commands, {pairs}", fontsize=11, color=INK)


def verb_colours(corpora: Mapping[str, Counter[Command]]) -> dict[str, tuple[float, ...]]:
    """Verb → colour, for those that any corpus shows by name."""
    from matplotlib import colormaps

    shown = dict.fromkeys(verb for counts in corpora.values() for verb, _ in by_verb(counts).most_common(VERBS))
    return {verb: colormaps["tab20"](number % 20) for number, verb in enumerate(shown)}


def by_verb(counts: Counter[Command]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for (verb, _), count in counts.items():
        totals[verb] += count
    return totals


def draw_sunburst(panel: "Axes", counts: Counter[Command], colours: Mapping[str, tuple[float, ...]]) -> None:
    """Two rings of wedges; what is rare is left without a word."""
    start, degrees = 0.0, 360 / counts.total()
    verbs = by_verb(counts).most_common(VERBS)
    for verb, count in verbs:
        draw_wedge(panel, INNER, start, count * degrees, lighter(colours[verb], 0.35), verb, 9.5)
        draw_wedge(panel, INNER + RING, start, count * degrees, lighter(colours[verb], 0.88), "", 8)
        at = start
        for noun, number in nouns_of(counts, verb):
            draw_wedge(panel, INNER + RING, at, number * degrees, lighter(colours[verb], 0.65), noun, 8)
            at += number * degrees
        start += count * degrees
    draw_wedge(panel, INNER, start, 360 - start, REST, "other verbs", 9)
    panel.set(xlim=(-1.0, 1.0), ylim=(-1.0, 1.0), aspect="equal")
    panel.set_axis_off()


def nouns_of(counts: Counter[Command], verb: str) -> list[tuple[str, int]]:
    """(noun, number) of a verb's commonest nouns."""
    found = Counter({noun: count for (one, noun), count in counts.items() if one == verb and noun is not None})
    return found.most_common(NOUNS_EACH)


def draw_wedge(
    panel: "Axes", radius: float, start: float, width: float, colour: object, word: str, size: float
) -> None:
    """A piece of a ring, clockwise from the top, with its word along the radius if there is room."""
    from math import cos, radians, sin

    from matplotlib.patches import Wedge

    if width <= 0:
        return
    left, right = 90 - start - width, 90 - start
    panel.add_patch(
        Wedge((0, 0), radius + RING, left, right, width=RING, facecolor=colour, edgecolor="white", linewidth=1)
    )
    if width < FEWEST_DEGREES or not word:
        return
    middle, away = (left + right) / 2, radius + RING / 2
    turned = middle if cos(radians(middle)) >= 0 else middle + 180  # readable from left to right
    x, y = away * cos(radians(middle)), away * sin(radians(middle))
    shown = word if len(word) <= 12 else f"{word[:11]}…"
    panel.text(x, y, shown, rotation=turned, rotation_mode="anchor", ha="center", va="center", fontsize=size, color=INK)


def lighter(colour: Sequence[float], by: float) -> tuple[float, ...]:
    """A colour on its way to white, which is 1."""
    return tuple(by + (1 - by) * part for part in colour[:3])


def draw_vocabularies(panel: "Axes", vocabularies: Mapping[str, Vocabulary]) -> None:
    """Different words against all words, on logarithmic axes."""
    from matplotlib.ticker import NullFormatter

    for name, vocabulary in vocabularies.items():
        tokens, types = zip(*vocabulary.points(), strict=True)
        label = f"{name}: {types[-1]:,} in {tokens[-1]:,}"
        panel.plot(tokens, types, color=CORPUS_COLOURS[name], linewidth=2, label=label)
        panel.plot(tokens[-1], types[-1], "o", color=CORPUS_COLOURS[name], markersize=5)
    panel.set(xscale="log", yscale="log", xlabel="words read", ylabel="different words")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter(NullFormatter())
    panel.legend(loc="upper left", fontsize=9, frameon=False, labelcolor="linecolor")
    panel.grid(True, color=GRID, linewidth=0.8)
    panel.tick_params(labelsize=9, labelcolor=INK)
    panel.spines[["top", "right"]].set_visible(False)
