"""Tasks of SimplerEnv and SimplerEnv-Instruct as data: where robot and objects start, in the published order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from instructvla.evaluation.simulators.simulator import Trial

Range = tuple[float, float, int]  # from, to, how many (np.linspace)


@dataclass(frozen=True)
class Embodiment:
    """How a robot of the simulator is run.

    Args:
        robot: name in `instructvla.evaluation.robots`.
        control_freq: control steps per simulated second.
        sim_freq: physics steps per simulated second.
    """

    robot: str
    control_freq: int
    sim_freq: int


EMBODIMENTS: Mapping[str, Embodiment] = {
    "google_robot_static": Embodiment("google_robot", 3, 513),
    "widowx": Embodiment("widowx", 5, 500),
    "widowx_sink_camera_setup": Embodiment("widowx", 5, 500),
}


@dataclass(frozen=True)
class Grid:
    """Starts of a task's trials: every place of the robot with every place of the objects, the latter first.

    Args:
        robot_x, robot_y: places of the robot's base, m.
        robot_yaw: its turn about the vertical, rad.
        object_x, object_y: places of the object, m; None where the environment has numbered layouts.
        layouts: number of those.
        overlay: photo behind the scene, in the assets' `real_inpainting`; None shows the simulated background.
    """

    robot_x: Range
    robot_y: Range
    robot_yaw: float = 0.0
    object_x: Range | None = None
    object_y: Range | None = None
    layouts: int = 0
    overlay: str | None = None

    def starts(self) -> list[dict[str, Any]]:
        """Options of the adapter's `reset`, one per trial."""
        if self.object_x is None:
            objects = [{"object_episode": number} for number in range(self.layouts)]
        else:
            objects = [{"object_xy": list(xy)} for xy in product(places(self.object_x), places(self.object_y))]
        robots = [list(xy) for xy in product(places(self.robot_x), places(self.robot_y))]
        return [
            {"robot_xy": robot, "robot_yaw": self.robot_yaw, "overlay": self.overlay, **one}
            for robot, one in product(robots, objects)
        ]


def places(among: Range) -> list[float]:
    """Evenly spaced, both ends included."""
    low, high, number = among
    return np.linspace(low, high, number).tolist()


@dataclass(frozen=True)
class SimplerTask:
    """One task: an environment, how it is built, and where its trials start.

    Args:
        name: unique in the benchmark.
        environment: id in mani_skill2_real2sim.
        scene: stage that it stands on.
        grids: whose trials follow each other.
        max_steps: control steps of an episode.
        groups: what its rate counts towards.
        robot: name in the simulator.
        build: further arguments of the environment.
        instruction: what its environment asks for first, where it is published.
    """

    name: str
    environment: str
    scene: str
    grids: tuple[Grid, ...]
    max_steps: int
    groups: tuple[str, ...]
    robot: str = "google_robot_static"
    build: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        return [start for grid in self.grids for start in grid.starts()]

    def trial(self, index: int) -> Trial:
        """Beyond the published trials, they start again from the first, with new noise of the policy."""
        how = EMBODIMENTS[self.robot]
        return Trial(
            task=self.name,
            index=index,
            seed=index,
            robot=how.robot,
            max_steps=self.max_steps,
            groups=self.groups,
            stops_at_success=False,  # the published evaluator runs on, and takes what holds after the last step
            options={
                "env": self.environment,
                "scene": self.scene,
                "robot": self.robot,
                "control_freq": how.control_freq,
                "sim_freq": how.sim_freq,
                "build": dict(self.build),
                "instruction": self.instruction,
                **self.starts[index % len(self.starts)],
            },
        )


def select_tasks(
    tasks: Sequence[SimplerTask], names: Sequence[str], benchmark: str, sets: Mapping[str, Sequence[SimplerTask]]
) -> list[SimplerTask]:
    """Tasks that are named, or in a named group or set, once each.

    Args:
        tasks: that there are.
        names: of tasks, groups or sets.
        benchmark: its title, for the message.
        sets: name → tasks.

    Raises:
        ValueError: a name that isn't there.
    """
    groups = list(dict.fromkeys(group for task in tasks for group in task.groups))
    chosen: dict[str, SimplerTask] = {}
    for name in names:
        found = sets.get(name) or [task for task in tasks if name == task.name or name in task.groups]
        if not found:
            known = [*sets, *groups, *(task.name for task in tasks)]
            nearest = "".join(f", the nearest is {near!r}" for near in get_close_matches(name, known, 1))
            raise ValueError(
                f"{benchmark} has no task or group {name!r}{nearest}; groups are {', '.join([*sets, *groups])}."
            )
        chosen |= {task.name: task for task in found}
    return list(chosen.values())


def task_trials(tasks: Sequence[SimplerTask], per_task: int | None) -> list[Trial]:
    """Trials of tasks, first those of index 0.

    Args:
        per_task: number of trials; None: each task's published number.

    Raises:
        ValueError: no trial.
    """
    if per_task is not None and per_task < 1:
        raise ValueError(f"the number of trials per task must be at least 1, got {per_task}.")
    numbers = [per_task or len(task.starts) for task in tasks]
    return [
        task.trial(index)
        for index in range(max(numbers, default=0))
        for task, number in zip(tasks, numbers, strict=True)
        if index < number
    ]
