"""The HTML page of a preview: what is shown of a dataset and of an episode, and the template filled with it.

The page needs nothing from elsewhere, and its content security policy lets it load nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import DatasetStatistics
from instructvla.training.data.episodes import Annotation, Episode
from instructvla.training.data.preview_tracks import (
    MAX_FRAMES,
    THUMB_HEIGHT,
    Curve,
    Segment,
    Strip,
    cursor_steps,
    curve,
    number,
    segments,
    strip,
)

TEMPLATE = "preview.html.jinja"
STATISTICS = ("mean", "std", "min", "q01", "q99", "max")


@dataclass(frozen=True)
class EpisodeView:
    """What a page shows of one episode.

    Args:
        index: number in the dataset.
        episode: None where it can't be read.
        description: names and units of its columns.
        warnings: what is wrong with it, in words; why it can't be read.
    """

    index: int
    episode: Episode | None
    description: DatasetDescription
    warnings: Sequence[str] = ()

    @property
    def name(self) -> str:
        return f"number {self.index}" if self.episode is None else self.episode.episode_id

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
        described = self.description
        groups = {"Actions": self._curves(self.episode.actions, described.action_names, described.action_units, True)}
        if self.episode.states is not None:
            names, units = described.state_names, described.state_units
            groups["States"] = self._curves(self.episode.states, names, units, False)
        return groups

    def _curves(self, values: np.ndarray, names: Sequence[str], units: Sequence[str], held: bool) -> list[Curve]:
        grippers = self.description.gripper_dims if held else ()
        return [
            curve(column, name, unit, dim in grippers, held)
            for dim, (column, name, unit) in enumerate(zip(values.T, names, units, strict=True))
        ]

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


def render_page(
    title: str, facts: Mapping[str, str], views: Sequence[EpisodeView], statistics: DatasetStatistics
) -> str:
    """The page.

    Args:
        title: of the page, the dataset's name.
        facts: name → value, what is known of the dataset as a whole.
        views: the episodes to show.
        statistics: of these episodes.
    """
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title=title,
        facts=dict(facts),
        views=views,
        statistics=statistics_tables(statistics),
        statistic_names=STATISTICS,
        max_frames=MAX_FRAMES,
        thumb_height=THUMB_HEIGHT,
    )


def statistics_tables(statistics: DatasetStatistics) -> dict[str, list[list[str]]]:
    """ "Actions" and "States": per dimension its name, its unit and `STATISTICS`; nothing without an episode."""
    if not statistics.episodes:
        return {}
    described, summary = statistics.description, statistics.summary()
    columns = {
        "Actions": (described.action_names, described.action_units, "action"),
        "States": (described.state_names, described.state_units, "state"),
    }
    return {
        group: [
            [name, unit, *(number(summary[part][statistic][dim]) for statistic in STATISTICS)]
            for dim, (name, unit) in enumerate(zip(names, units, strict=True))
        ]
        for group, (names, units, part) in columns.items()
        if part in summary
    }
