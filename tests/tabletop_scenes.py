"""Scenes for tests of the tabletop's language."""

from collections.abc import Iterator

import numpy as np

from instructvla.evaluation.tabletop.meanings import kinded
from instructvla.evaluation.tabletop.sampling import sample_scene
from instructvla.evaluation.tabletop.scene import Placed, Scene, Task
from instructvla.evaluation.tabletop.world_state import ObjectState, WorldState

Position = tuple[float, float]


def scene_of(things: dict[str, Position], receptacles: dict[str, Position] | None = None, drawer=None) -> Scene:
    """A scene with things at given x and y."""
    placed = [tuple(Placed(*kinded(title), at) for title, at in some.items()) for some in (things, receptacles or {})]
    return Scene(*placed, drawer=drawer)


def in_a_row(*titles: str, receptacles: tuple[str, ...] = (), drawer: float | None = None) -> Scene:
    """Things from left to right as the front camera sees them, 0.15 m apart, then receptacles."""
    places = {title: (0.5, -0.3 + 0.15 * index) for index, title in enumerate((*titles, *receptacles))}
    return scene_of({t: places[t] for t in titles}, {t: places[t] for t in receptacles}, drawer)


def sampled(number: int, split: str, seed: int = 0) -> Iterator[tuple[Scene, Task]]:
    rng = np.random.default_rng(seed)
    return (sample_scene(rng, split) for _ in range(number))


def resting_state(scene: Scene, drawer: float | None = None, **moved: ObjectState) -> WorldState:
    """Everything where the scene has it, but for what has moved (underscores stand for spaces)."""
    objects = {title: ObjectState(*placed.position, 0.02) for title, placed in scene.titles().items()}
    objects |= {title.replace("_", " "): state for title, state in moved.items()}
    return WorldState(objects, (0.4, 0, 0.2, 0, 0, 0), 1.0, drawer=scene.drawer if drawer is None else drawer)
