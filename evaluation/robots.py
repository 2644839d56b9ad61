"""The evaluated robots: what a policy gets of their proprioception, and how its actions become their commands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from instructvla.evaluation.action_ensembling import AdaptiveEnsemble
from instructvla.evaluation.chunk_schedules import EveryStep, OpenLoop, Schedule
from instructvla.evaluation.policy_images import center_crop
from instructvla.evaluation.robot_conventions import (
    GoogleRobotGripper,
    google_robot_state,
    libero_gripper,
    simpler_command,
    widowx_gripper,
    widowx_state,
)

Command = Callable[[np.ndarray], np.ndarray]
ALPHA = 0.1  # of the released evaluation's adaptive ensembling
TABLETOP_STEPS = 4  # of its checkpoint's chunks of 8


@dataclass(frozen=True)
class Robot:
    """One robot as the evaluation drives it.

    Args:
        name: by which `find_robot` finds it.
        make_command: gives, for one episode, (action, physical units) → what the robot's environment steps with.
        make_schedule: gives, for one episode, the released way from chunks to actions.
        state: proprioception of the environment → the policy's state; None where they are the same.
        stateless_view: camera frame → what a policy without state is shown of it; None: all of it.
        unnorm_keys: statistics of checkpoints that were trained for it.
        random_span: largest move and turn of a step, in the policy's units, when actions are random.
    """

    name: str
    make_command: Callable[[], Command]
    make_schedule: Callable[[], Schedule]
    state: Callable[[np.ndarray], np.ndarray] | None = None
    unnorm_keys: tuple[str, ...] = ()
    stateless_view: Callable[[np.ndarray], np.ndarray] | None = None
    random_span: tuple[float, float] = (0.02, 0.1)

    def random_action(self, rng: np.random.Generator) -> np.ndarray:
        """(7,) float64: uniform within the span, the gripper open or closed."""
        move, turn = self.random_span
        return np.concatenate([rng.uniform(-move, move, 3), rng.uniform(-turn, turn, 3), [rng.integers(2)]])


def simpler_commands(make_gripper: Callable[[], Callable], action_scale: float = 1.0) -> Command:
    """SimplerEnv's commands: translation (m), axis-angle (rad) and the robot's gripper convention, (7,)."""
    gripper = make_gripper()

    def command(action: np.ndarray) -> np.ndarray:
        return np.concatenate(simpler_command(action, gripper, action_scale)[:3])

    return command


def libero_command(action: np.ndarray) -> np.ndarray:
    """LIBERO's operational-space deltas with robosuite's gripper sign, (7,)."""
    return np.append(action[:6], libero_gripper(action[6]))


ROBOTS: Mapping[str, Robot] = {
    robot.name: robot
    for robot in (
        Robot(
            "widowx",
            partial(simpler_commands, lambda: widowx_gripper),
            lambda: EveryStep(AdaptiveEnsemble(7, ALPHA)),
            widowx_state,
            ("bridge_dataset",),
            center_crop,
        ),
        Robot(
            "google_robot",
            partial(simpler_commands, GoogleRobotGripper),
            lambda: EveryStep(AdaptiveEnsemble(2, ALPHA)),
            google_robot_state,
            ("fractal20220817_data",),
            center_crop,
        ),
        Robot(
            "libero",
            lambda: libero_command,
            lambda: OpenLoop(8),
            unnorm_keys=tuple(f"libero_{suite}_no_noops" for suite in ("spatial", "object", "goal", "10")),
            random_span=(1.0, 1.0),
        ),
        Robot(
            "tabletop",
            lambda: np.array,
            lambda: OpenLoop(TABLETOP_STEPS),
            unnorm_keys=("tabletop",),
            random_span=(0.05, 0.25),
        ),
    )
}


def find_robot(name: str) -> Robot:
    """
    Raises:
        ValueError: an unknown robot; the known ones are listed.
    """
    if name not in ROBOTS:
        raise ValueError(f"there is no robot {name!r}; there are {', '.join(ROBOTS)}.")
    return ROBOTS[name]
