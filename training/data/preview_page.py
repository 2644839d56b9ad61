"""The HTML page of a preview: what is shown of a dataset and of an episode, and the template filled with it.

The page needs nothing from elsewhere, and its content security policy lets it load nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import DatasetStatistics
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode
from instructvla.training.data.html_page import render_html
from instructvla.training.data.preview_tracks import (
    MAX_FRAMES,
    THUMB_HEIGHT,
    Curve,
    Segment,
    Strip,
    Tick,
    cursor_steps,
    curve,
    number,
    segments,
    strip,
    ticks,
)

TEMPLATE = Path(__file__).parent / "preview.html.jinja"
STATISTICS = ("mean", "std", "min", "q01", "q99", "max")


@dataclass(frozen=True)
class EpisodeView:
    """What a page shows of one episode.

    Args:
        index: number in the dataset.
        episode: None where it can't be read.
        description: names and units of its columns.
        warnings: what is wrong with it, in words; why it can't be read.
        spans: what each box of "Actions" and "States" holds at least, of `curve_spans`.
        error: why it can't be read.
    """

    index: int
    episode: Episode | None
    description: DatasetDescription
    warnings: Sequence[str] = ()
    spans: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    error: BadEpisodeError | None = None

    @property
    def recorded_id(self) -> str:
        """Its id, where that tells more than its number."""
        return "" if self.episode is None or self.episode.episode_id == str(self.index) else self.episode.episode_id

    @cached_property
    def strips(self) -> list[Strip]:
        return [strip(camera, pictures) for camera, pictures in self.episode.images.items()]

    @property
    def instructions(self) -> list[Segment]:
        return segments(self.episode.instructions)

    @property
    def motions(self) -> list[Segment]:
        return segments(self.episode.language_motions or [None] * len(self.episode))

    @property
    def annotation(self) -> Annotation | None:
        return self.episode.annotation

    @cached_property
    def curves(self) -> dict[str, list[Curve]]:
        """ "Actions" and "States", a curve for each dimension."""
        groups = {"Actions": self._curves("Actions", self.episode.actions)}
        if self.episode.states is not None:
            groups["States"] = self._curves("States", self.episode.states)
        return groups

    def _curves(self, group: str, values: np.ndarray) -> list[Curve]:
        names, units, _ = columns_of(self.description)[group]
        held = group == "Actions"
        grippers = self.description.gripper_dims if held else ()
        spans = self.spans.get(group, [None] * len(names))
        return [
            curve(column, name, unit, dim in grippers, held, span)
            for dim, (column, name, unit, span) in enumerate(zip(values.T, names, units, spans, strict=True))
        ]

    @property
    def ticks(self) -> list[Tick]:
        return ticks(len(self.episode), self.episode.control_rate_hz)

    @property
    def cursor(self) -> dict[str, Any]:
        """What the page's script needs; times are in steps."""
        return {
            "total": len(self.episode),
            "rate": self.episode.control_rate_hz,
            "steps": cursor_steps(len(self.episode)),
            "values": [curve.values for group in self.curves.values() for curve in group],
            "frames": [strip.frames for strip in self.strips],
        }


@dataclass(frozen=True)
class PageNotes:
    """What a page says of the dataset as a whole.

    Args:
        warnings: what is wrong with it, in words.
        checked: what was looked for in all of it, or was not.
        statistics_of: whose the statistics are, e.g. "all 25 episodes".
    """

    warnings: Sequence[str] = ()
    checked: str = ""
    statistics_of: str = "the episodes shown"


def render_page(
    title: str,
    facts: Mapping[str, str],
    views: Sequence[EpisodeView],
    statistics: DatasetStatistics,
    notes: PageNotes,
) -> str:
    """The page.

    Args:
        title: of the page, the dataset's name.
        facts: name → value, what is known of the dataset as a whole.
        views: the episodes to show.
        statistics: of these episodes, or of all.
        notes: on the dataset as a whole.
    """
    return render_html(
        TEMPLATE,
        title=title,
        facts=dict(facts),
        views=views,
        notes=notes,
        statistics=statistics_tables(statistics),
        statistic_names=STATISTICS,
        max_frames=MAX_FRAMES,
        thumb_height=THUMB_HEIGHT,
    )


def columns_of(description: DatasetDescription) -> dict[str, tuple[Sequence[str], Sequence[str], str]]:
    """ "Actions" and "States": names and units of the dimensions, and their part of the statistics."""
    return {
        "Actions": (description.action_names, description.action_units, "action"),
        "States": (description.state_names, description.state_units, "state"),
    }


def curve_spans(statistics: DatasetStatistics) -> dict[str, list[tuple[float, float]]]:
    """ "Actions" and "States": per dimension q01 and q99; nothing without an episode."""
    if not statistics.episodes:
        return {}
    summary = statistics.summary()
    parts = {group: part for group, (_, _, part) in columns_of(statistics.description).items() if part in summary}
    return {group: list(zip(summary[part]["q01"], summary[part]["q99"], strict=True)) for group, part in parts.items()}


def statistics_tables(statistics: DatasetStatistics) -> dict[str, list[list[str]]]:
    """ "Actions" and "States": per dimension its name, its unit and `STATISTICS`; nothing without an episode."""
    if not statistics.episodes:
        return {}
    summary = statistics.summary()
    return {
        group: [
            [name, unit, *(number(summary[part][statistic][dim]) for statistic in STATISTICS)]
            for dim, (name, unit) in enumerate(zip(names, units, strict=True))
        ]
        for group, (names, units, part) in columns_of(statistics.description).items()
        if part in summary
    }
