"""A point that carries an object, in place of ManiSkill3's WidowX: same state, same commands, no physics."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from instructvla.evaluation.simulators.maniskill3_state import BridgeState
from instructvla.evaluation.simulators.maniskill3_tasks import find_task, random_placement
from instructvla.evaluation.simulators.simulator import Observation, Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError

BASE = np.array([0.147, 0.028, 0.87, 0, 0, 0, 1.0])  # as in the environment: turned by half a turn
GRIPPER = np.array([0.3, 0.0, 0.15, 0.5, -0.5, 0.5, 0.5])  # in the base's frame, pointing down
REACH = 0.02  # m
LEVEL = 0.02  # m, of an object above its destination


class CarryingPoint:
    """
    Args:
        slippery: whether the object can't be held.
        breaks_at: numbers of steps, counted over all episodes, at which it breaks.
    """

    versions, notes = {"point": "1.0"}, ()

    def __init__(self, slippery: bool = False, breaks_at: Sequence[int] = ()):
        self.slippery, self.breaks_at, self.steps = slippery, breaks_at, 0
        self.closed = False

    def reset(self, trial: Trial) -> Observation:
        place = trial.options
        if "episode" in place:
            place = random_placement(find_task(trial.task), np.random.default_rng(place["episode"]))
        source, destination = (
            np.array([*position, *orientation], np.float64)
            for position, orientation in zip(place["positions"], place["orientations"], strict=True)
        )
        still = np.zeros(6)
        self.state = BridgeState(BASE, GRIPPER, source, destination, still, still, np.zeros(8), np.zeros(8))
        self.closed, self.held, self.task = False, False, trial.task
        return self.seen()

    def step(self, command: np.ndarray) -> Observation:
        self.steps += 1
        if self.steps in self.breaks_at:
            raise SimulatorBrokeError("the point is gone")
        target, source = self.state.target.copy(), self.state.source.copy()
        target[:3] += command[:3]
        self.closed = command[6] < 0
        at = self.in_world(target[:3])
        if self.held and not self.closed:
            source[2] = self.state.destination[2] + LEVEL
        near = np.linalg.norm(self.in_world(self.state.target[:3]) - source[:3]) < REACH
        self.held = self.closed and (self.held or near) and not self.slippery
        if self.held:
            source[:3] = at
        self.state = replace(self.state, target=target, source=source)
        return self.seen()

    def seen(self) -> Observation:
        gap = self.state.source[:3] - self.state.destination[:3]
        return Observation(
            images={"primary": np.full((48, 64, 3), min(self.steps, 255), np.uint8)},
            instruction=f"do the {self.task}",
            proprioception=np.append(self.state.target, 0.0 if self.closed else 1.0),
            state=self.state.vector(),
            success=not self.held and np.linalg.norm(gap[:2]) < 0.01 and abs(gap[2] - LEVEL) < 1e-9,
        )

    def in_world(self, position: np.ndarray) -> np.ndarray:
        return self.state.base[:3] + position * [-1, -1, 1]

    def close(self) -> None: ...

    def __enter__(self) -> "CarryingPoint":
        return self

    def __exit__(self, *_: object) -> None: ...
