"""A scripted expert for SimplerEnv's Google robot that lifts a standing can; it knows where everything is."""

from dataclasses import dataclass

import numpy as np

from instructvla.evaluation.robot_conventions import quaternion_to_matrix

STEP_M, REACHED_M = 0.06, 0.01  # longest wanted move of one control step; the arm's planner makes it shorter
LONGEST_MOVE = 20  # control steps, after which the next move begins whatever is left of this one
APPROACH_M, GRASP_M, LIFT_M = 0.15, 0.02, 0.15  # before the place of the grasp, above the can's centre, upwards
CLOSING_STEPS = 9  # a change of the gripper is held for ten
OPEN, CLOSED = 1.0, 0.0


@dataclass(frozen=True)
class Grip:
    """Where things are, in the base's frame.

    Args:
        hand: (7,) position (m) and unit quaternion (wxyz); its z axis points where the fingers do.
        can: (3,) its centre, m.
    """

    hand: np.ndarray
    can: np.ndarray


class Expert:
    """Comes along the fingers' direction, closes them and lifts.

    Args:
        state: at the episode's start.
    """

    def __init__(self, state: Grip):
        place = state.can + [0, 0, GRASP_M]
        towards = quaternion_to_matrix(state.hand[3:], "wxyz")[:, 2]
        self._moves = [  # where to, opening, for how many steps at least
            (place - APPROACH_M * towards, OPEN, 0),
            (place, OPEN, 0),
            (place, CLOSED, CLOSING_STEPS),
            (place + [0, 0, LIFT_M], CLOSED, 0),
        ]
        self._taken = 0

    @property
    def done(self) -> bool:
        """Whether the plan is carried out: the last action was to stay."""
        return not self._moves

    def act(self, state: Grip) -> np.ndarray:
        """(7,) as a policy for Fractal gives it: translation (m), Euler angles (rad), opening (1 = open)."""
        while self._moves and self._finished(state):
            self._moves.pop(0)
            self._taken = 0
        if not self._moves:
            return np.array([0, 0, 0, 0, 0, 0, CLOSED])
        self._taken += 1
        place, opening, _ = self._moves[0]
        way = place - state.hand[:3]
        return np.array([*way * STEP_M / max(float(np.linalg.norm(way)), STEP_M), 0, 0, 0, opening])

    def _finished(self, state: Grip) -> bool:
        place, _, least = self._moves[0]
        there = bool(np.linalg.norm(place - state.hand[:3]) < REACHED_M)
        return self._taken >= LONGEST_MOVE or (there and self._taken >= least)
