"""A scripted expert for tasks of SIMPLER's WidowX that put one object on or into another one.

It knows where everything is, and acts as a policy does. ManiSkill3 and SimplerEnv have these tasks, with the same robot
and the same meaning of its commands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from instructvla.evaluation.robot_conventions import quaternion_to_matrix

STEP_M, STEP_RAD = 0.03, 0.3  # longest move and turn of one control step
REACHED_M, REACHED_RAD = 0.004, 1e-3
LONGEST_MOVE = 20  # control steps, after which the next move begins whatever is left of this one
APPROACH_M, CARRY_M, RETREAT_M = 0.09, 0.12, 0.14  # above the object, above where it lay, above the destination
OPEN, CLOSED = 1.0, 0.0


@dataclass(frozen=True)
class Poses:
    """Where things are: position (m) and unit quaternion (wxyz), (7,) float64.

    Args:
        base: of the robot, in the world.
        target: of the gripper, in the base's frame, to which the controller adds the commands.
        source: of the object to be moved, in the world.
        destination: of what it shall be put on, in the world.
    """

    base: np.ndarray
    target: np.ndarray
    source: np.ndarray
    destination: np.ndarray


Goal = Callable[[Poses], np.ndarray]


@dataclass(frozen=True)
class Handling:
    """What the expert must be told of a task.

    Args:
        release_m: how far above the destination's centre it lets go.
        long: whether the object has a length, which the fingers get across; cubes lie square to them.
        grasp_m: how far above the object's centre it is grasped, so that the fingers clear the table.
    """

    release_m: float
    long: bool = True
    grasp_m: float = 0.0


@dataclass(frozen=True)
class Move:
    """A part of the plan.

    Args:
        opening: of the gripper.
        goal: state at the move's first step → where the gripper shall be, (3,) m, base's frame; None: where it is.
        turns: whether the fingers get across the object.
        steps: how many at least.
    """

    opening: float
    goal: Goal | None = None
    turns: bool = False
    steps: int = 0


class Expert:
    """Takes the object from above, across its length, carries it over its destination and lets go.

    Args:
        handling: of the task.
        state: at the episode's start.
    """

    def __init__(self, handling: Handling, state: Poses):
        place = position_in_base(state, state.source) + [0, 0, handling.grasp_m]
        over = place[2] + CARRY_M
        self._turn = turn_across(state) if handling.long else 0.0
        self._moves = [
            Move(OPEN, lambda _: place + [0, 0, APPROACH_M], turns=True),
            Move(OPEN, lambda _: place),
            Move(OPEN, steps=2),
            Move(CLOSED, steps=5),
            Move(CLOSED, lambda _: place + [0, 0, CARRY_M]),
            Move(CLOSED, lambda now: np.append(destination(now)[:2], over)),
            Move(CLOSED, partial(destination, above=handling.release_m)),
            Move(CLOSED, steps=2),
            Move(OPEN, steps=4),
            Move(OPEN, partial(destination, above=RETREAT_M)),
        ]
        self._goal: np.ndarray | None = None
        self._taken = 0

    @property
    def done(self) -> bool:
        """Whether the plan is carried out: the last action was to stay."""
        return not self._moves

    def act(self, state: Poses) -> np.ndarray:
        """(7,) float32 as a policy for Bridge gives it: translation (m), Euler angles (rad), opening (1 = open)."""
        while self._moves and self._finished(state):
            self._moves.pop(0)
            self._goal, self._taken = None, 0
        if not self._moves:
            return np.array([0, 0, 0, 0, 0, 0, OPEN], np.float32)
        self._taken += 1
        way = self._way(state)
        shift = way * STEP_M / max(float(np.linalg.norm(way)), STEP_M)
        turn = np.clip(self._turn, -STEP_RAD, STEP_RAD) if self._moves[0].turns else 0.0
        self._turn -= turn
        return np.array([*shift, 0, 0, turn, self._moves[0].opening], np.float32)

    def _finished(self, state: Poses) -> bool:
        move = self._moves[0]
        if self._taken >= LONGEST_MOVE:
            return True
        turned = not move.turns or abs(self._turn) < REACHED_RAD
        return self._taken >= move.steps and turned and bool(np.linalg.norm(self._way(state)) < REACHED_M)

    def _way(self, state: Poses) -> np.ndarray:
        """(3,) from where the controller leads the gripper to where the move wants it, m."""
        if self._moves[0].goal is None:
            return np.zeros(3)
        if self._goal is None:
            self._goal = self._moves[0].goal(state)
        return self._goal - gripper(state)


def position_in_base(state: Poses, pose: np.ndarray) -> np.ndarray:
    """(3,) of a pose in the world, m."""
    return quaternion_to_matrix(state.base[3:], "wxyz").T @ (pose[:3] - state.base[:3])


def gripper(state: Poses) -> np.ndarray:
    """(3,) where the controller leads the gripper, in the base's frame, m."""
    return state.target[:3]


def destination(state: Poses, above: float = 0.0) -> np.ndarray:
    """(3,) `above` the destination's centre, in the base's frame, m."""
    return position_in_base(state, state.destination) + [0, 0, above]


def turn_across(state: Poses) -> float:
    """The smallest turn of the gripper (rad, in ±π/2) after which its fingers close across the object's length."""
    length = quaternion_to_matrix(state.base[3:], "wxyz").T @ quaternion_to_matrix(state.source[3:], "wxyz")[:, 0]
    fingers = quaternion_to_matrix(state.target[3:], "wxyz")[:, 1]
    across = np.arctan2(length[1], length[0]) + np.pi / 2
    return float((across - np.arctan2(fingers[1], fingers[0]) + np.pi / 2) % np.pi - np.pi / 2)
