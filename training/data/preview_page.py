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
        episode: without it, `warnings` say why it can't be read.
        description: names and units of its columns.
        warnings: what is wrong with it, in words.
    """

    index: int
    episode: Episode | None
    description: DatasetDescription
    found: Sequence[str] = ()

    @property
    def name(self) -> str:
        return f"number {self.index}" if self.episode is None else self.episode.episode_id

    @cached_property
    def strips(self) -> list[Strip]:
        return [strip(camera, pictures) for camera, pictures in self.episode.images.items()]

    @property
    def warnings(self) -> list[str]:
        shown = [] if self.episode is None else self.strips
        return [*self.found, *(warning for strip in shown for warning in strip.warnings)]

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


def render_page(title: str, facts: Mapping[str, str], views: Sequence[EpisodeView]) -> str:
    """The page.

    Args:
        title: of the page, the dataset's name.
        facts: name → value, what is known of the dataset as a whole.
        views: the episodes to show.
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
        statistics=statistics_tables([view for view in views if view.episode is not None]),
        statistic_names=STATISTICS,
        max_frames=MAX_FRAMES,
        thumb_height=THUMB_HEIGHT,
    )


def statistics_tables(views: Sequence[EpisodeView]) -> dict[str, list[list[str]]]:
    """ "Actions" and "States": per dimension its name, its unit and `STATISTICS`, over all steps of the episodes."""
    described = views[0].description
    tables = {
        "Actions": statistics_rows([v.episode.actions for v in views], described.action_names, described.action_units)
    }
    if all(view.episode.states is not None for view in views):
        states = [view.episode.states for view in views]
        tables["States"] = statistics_rows(states, described.state_names, described.state_units)
    return tables


def statistics_rows(columns: Sequence[np.ndarray], names: Sequence[str], units: Sequence[str]) -> list[list[str]]:
    values = np.concatenate(columns).astype(np.float64)
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    numbers = np.stack([values.mean(0), values.std(0), values.min(0), low, high, values.max(0)], axis=1)
    return [[name, unit, *map(number, row)] for name, unit, row in zip(names, units, numbers, strict=True)]
