"""SIMPLER's four WidowX tasks as ManiSkill3 has them, and placements of their objects beside the fixed ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

PRIMARY = "primary"  # the third-person camera, as Bridge's policies call it
EPISODES = 24  # per task, numbers 0 to 23 of the environment's grid (Li et al. 2024)
EGGPLANT_ORIENTATIONS = (  # in the sink, unit quaternions wxyz, at rest: those of the environment's grid
    (0.543729, 0.82549, 0.0746101, 0.131747),
    (0.559342, 0.817133, -0.138906, -0.0116353),
    (0.543029, 0.789388, -0.267736, -0.101503),
    (-0.40751, -0.532897, 0.652644, 0.352154),
    (-0.157154, 0.235481, 0.75148, -0.595927),
    (-0.020137, 0.0213848, 0.953791, -0.299033),
    (-0.108854, 0.337692, 0.897378, -0.262348),
    (0.366114, 0.618434, 0.571457, 0.396152),
)
UPRIGHT = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class BridgeTask:
    """One task: an object shall be put on or into another one; lengths in the world's frame, whose z axis points up.

    Args:
        environment: its name in ManiSkill3.
        max_steps: control steps (5 Hz) of the published evaluation.
        centre: x and y of the grid, m.
        half_edges: of the grid in x and y, m.
        heights: of the object and of its destination, m, from which they settle.
        destination: x and y, where it is always the same.
        separation: smallest distance of the two in a random placement, m.
        turns: whether the object may lie in any direction.
        orientations: of the object, unit quaternions wxyz.
    """

    environment: str
    max_steps: int
    centre: tuple[float, float]
    half_edges: tuple[float, float]
    heights: tuple[float, float]
    destination: tuple[float, float] | None = None
    separation: float = 0.0
    turns: bool = False
    orientations: tuple[tuple[float, ...], ...] = (UPRIGHT,)


TASKS: Mapping[str, BridgeTask] = {
    "spoon": BridgeTask(
        "PutSpoonOnTableClothInScene-v1",
        60,
        centre=(-0.16, 0.0),
        half_edges=(0.075, 0.075),
        heights=(0.88, 0.875),
        separation=0.12,
        turns=True,
    ),
    "carrot": BridgeTask(
        "PutCarrotOnPlateInScene-v1",
        60,
        centre=(-0.16, 0.0),
        half_edges=(0.075, 0.075),
        heights=(0.887529, 0.869532),
        separation=0.12,
        turns=True,
    ),
    "stack": BridgeTask(
        "StackGreenCubeOnYellowCubeBakedTexInScene-v1",
        60,
        centre=(-0.16, 0.0),
        half_edges=(0.1, 0.1),
        heights=(0.887529, 0.887529),
        separation=0.1,
    ),
    "eggplant": BridgeTask(
        "PutEggplantInBasketScene-v1",
        120,
        centre=(-0.105, 0.206),
        half_edges=(0.01, 0.015),
        heights=(0.933, 1.0),
        destination=(-0.125, 0.025),
        orientations=EGGPLANT_ORIENTATIONS,
    ),
}


def find_task(name: str) -> BridgeTask:
    """
    Raises:
        ValueError: an unknown task; the known ones are listed.
    """
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are {', '.join(TASKS)}.")
    return TASKS[name]


def random_placement(task: BridgeTask, rng: np.random.Generator) -> dict[str, Any]:
    """Where the object and its destination lie: anywhere within the grid, so that demonstrations aren't the exam.

    Returns:
        The options of a `Trial`: "positions" (2, 3), m, and "orientations" (2, 4), unit quaternions wxyz, in the
        world, of the object and of its destination.
    """
    centre, half = np.array(task.centre), np.array(task.half_edges)
    while True:
        places = centre + half * rng.uniform(-1, 1, (2, 2))
        if task.destination is not None:
            places[1] = task.destination
        if np.linalg.norm(places[0] - places[1]) >= task.separation:
            break
    orientation = task.orientations[rng.integers(len(task.orientations))]
    if task.turns:
        half_angle = rng.uniform(-np.pi, np.pi) / 2
        orientation = (float(np.cos(half_angle)), 0.0, 0.0, float(np.sin(half_angle)))
    positions = [[*place.tolist(), height] for place, height in zip(places, task.heights, strict=True)]
    return {"positions": positions, "orientations": [list(orientation), list(UPRIGHT)]}
