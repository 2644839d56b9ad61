"""SimplerEnv and SimplerEnv-Instruct in SAPIEN 2.2.2: episodes as the published evaluator runs them.

Both benchmarks are environments of one package, the InstructVLA authors' fork of ManiSkill2_real2sim. It adds to the
original the tasks of SimplerEnv-Instruct and the end-effector's pose that policies with state are given. As in
the published evaluator, each episode gets an environment of its own and a reset without a seed: the environment seeds
itself, so the trial's options alone decide where it starts.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import mani_skill2_real2sim
import mani_skill2_real2sim.envs
import numpy as np
import sapien.core as sapien
from mani_skill2_real2sim.utils.common import flatten_state_dict
from mani_skill2_real2sim.utils.registration import REGISTERED_ENVS
from transforms3d.euler import euler2quat

from instructvla.evaluation.simulators.simpler_env_stand_ins import VISUAL_FILES, stage_file, stand_ins
from instructvla.evaluation.simulators.simulator import Observation, Trial

PACKAGES = ("sapien", "gymnasium", "numpy", "scipy", "transforms3d", "ruckig")
SHADER = "SIMPLER_ENV_SHADER"
SHADERS = ("rt", "ibl")
CAMERA = """
import sapien.core as sapien
engine, renderer = sapien.Engine(), sapien.SapienRenderer()
engine.set_renderer(renderer)
engine.create_scene().add_camera("camera", 8, 8, 1.0, 0.1, 1.0)
"""
HALF_TURN = [0.0, 0.0, 0.0, 1.0]  # wxyz: robots look along -x
CAMERAS = {"google_robot": "overhead_camera", "widowx": "3rd_view_camera"}
CONTROL_MODES = {
    "google_robot": "arm_pd_ee_delta_pose_align_interpolate_by_planner"
    "_gripper_pd_joint_target_delta_pos_interpolate_by_planner",
    "widowx": "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos",
}


class SimplerEnvSimulator:
    """One robot in SimplerEnv.

    Args:
        data: folder of meshes, scenes and photos, `data` in the fork's repository.
        shader: "rt" renders those tasks by ray tracing that are published so; "ibl" rasterises all.

    Attributes:
        environment: of the last trial.

    Raises:
        ValueError: a folder that isn't it, an unknown shader, or a machine on which SAPIEN can't render.
    """

    def __init__(self, data: Path, shader: str = "rt"):
        if shader not in SHADERS:
            raise ValueError(f"{SHADER} must be one of {', '.join(SHADERS)}, got {shader!r}.")
        if not (data / "custom").is_dir():
            raise ValueError(
                f"{data} has no assets of SimplerEnv: MS2_REAL2SIM_ASSET_DIR must name the folder `data` of "
                "ManiSkill2_real2sim's repository (the fork YangS03/my_maniskill)."
            )
        check_rendering()
        self.data, self.shader = data, shader
        self.versions = {"mani_skill2_real2sim": source_version()} | {name: version(name) for name in PACKAGES}
        self.notes = notes(data, shader)
        self.environment: gymnasium.Env | None = None

    def reset(self, trial: Trial) -> Observation:
        """Start an episode.

        Raises:
            ValueError: an environment, a scene or another asset that isn't there.
        """
        self.close()
        options, self._camera = trial.options, CAMERAS[trial.robot]
        arguments = self._arguments(trial)
        try:
            self.environment = gymnasium.make(options["env"], **arguments)
            observation, _ = self.environment.reset(options=start(options))
        except FileNotFoundError as error:
            raise ValueError(f"{trial.task}: an asset is missing ({str(error).split(' is not found')[0]}).") from error
        self._check_models(trial)
        first = self._observation(observation)
        if options.get("instruction") not in (None, first.instruction):
            raise ValueError(
                f"{trial.task}: the environment asks for {first.instruction!r}, the published task for "
                f"{options['instruction']!r}; install the commit of YangS03/my_maniskill that this benchmark names."
            )
        return first

    def step(self, command: np.ndarray) -> Observation:
        """One control step.

        Args:
            command: (7,) translation (m), axis-angle (rad), gripper.
        """
        writable = np.array(command, dtype=np.float64)  # as SAPIEN's controllers want it, and messages are not
        observation, reward, success, truncated, _ = self.environment.step(writable)
        return self._observation(observation, float(reward), bool(success), bool(truncated))

    def close(self) -> None:
        if self.environment is not None:
            self.environment.close()
            self.environment = None

    def _arguments(self, trial: Trial) -> dict[str, Any]:
        """Of the environment, after checks of what SAPIEN would go on without."""
        options, build = trial.options, dict(trial.options.get("build", {}))
        if options["env"] not in REGISTERED_ENVS:
            raise ValueError(
                f"{trial.task}: mani_skill2_real2sim {self.versions['mani_skill2_real2sim']} has no environment "
                f"{options['env']}; install the fork YangS03/my_maniskill."
            )
        if "dummy" not in options["scene"]:
            self._check_file(trial, stage_file(self.data, options["scene"]))
        if self.shader == "ibl":
            build.pop("shader_dir", None)
        if options.get("overlay") is not None:
            photo = self.data / "real_inpainting" / options["overlay"]
            self._check_file(trial, photo)
            build |= {"rgb_overlay_path": str(photo), "rgb_overlay_cameras": [self._camera]}
        return build | {
            "obs_mode": "rgbd",
            "robot": options["robot"],
            "control_mode": CONTROL_MODES[trial.robot],
            "control_freq": options["control_freq"],
            "sim_freq": options["sim_freq"],
            "max_episode_steps": trial.max_steps,
            "scene_name": options["scene"],
            "camera_cfgs": {"add_segmentation": True},
        }

    def _check_file(self, trial: Trial, file: Path) -> None:
        if not file.is_file():
            raise ValueError(
                f"{trial.task}: {file} is missing; get it from the repository YangS03/my_maniskill, or let "
                "`python -m instructvla.evaluation.simulators.simpler_env_stand_ins` make a stand-in."
            )

    def _check_models(self, trial: Trial) -> None:
        """SAPIEN only logs a mesh that it doesn't find, and draws nothing."""
        for actor in self.environment.unwrapped.get_actors():
            folder = self.data / "custom" / "models" / actor.name
            if actor.name and folder.is_dir() and not any((folder / name).is_file() for name in VISUAL_FILES):
                self._check_file(trial, folder / VISUAL_FILES[-1])

    def _observation(
        self, observation: Mapping[str, Any], reward: float = 0.0, success: bool = False, done: bool = False
    ) -> Observation:
        environment = self.environment.unwrapped
        controller = flatten_state_dict(environment.agent.controller.get_state())
        return Observation(
            images={"primary": observation["image"][self._camera]["rgb"]},
            instruction=environment.get_language_instruction(),
            proprioception=np.asarray(observation["agent"]["eef_pos"], dtype=np.float64),
            state=np.hstack([environment.get_state(), controller]).astype(np.float64),
            reward=reward,
            success=success,
            done=done,
        )


def check_rendering() -> None:
    """Tries a camera in a process of its own: without a Vulkan driver, SAPIEN ends the process that makes one.

    Raises:
        ValueError: it can't be made.
    """
    tried = subprocess.run(
        [sys.executable, "-c", CAMERA], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if tried.returncode != 0:
        said = (tried.stderr.strip() or f"exit {tried.returncode}").splitlines()[-1]
        raise ValueError(
            f"SAPIEN can't render here ({said}): it needs a Vulkan device with VK_KHR_external_semaphore_fd, that is a "
            "GPU with its driver, or a software renderer that has it; VK_ICD_FILENAMES names one."
        )


def start(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the environment's `reset` takes: where the robot stands, and where the objects lie.

    Args:
        options: with `robot_xy` (m), `robot_yaw` (rad), and `object_xy` (m) or `object_episode`.
    """
    rotation = sapien.Pose(q=euler2quat(0.0, 0.0, options["robot_yaw"])) * sapien.Pose(q=HALF_TURN)
    objects = (
        {"init_xy": np.array(options["object_xy"])}
        if "object_xy" in options
        else {"episode_id": options["object_episode"]}
    )
    return {
        "robot_init_options": {"init_xy": np.array(options["robot_xy"]), "init_rot_quat": rotation.q},
        "obj_init_options": objects,
    }


def source_version() -> str:
    """The package's version and a digest of its code: the fork bears the original's number."""
    folder = Path(mani_skill2_real2sim.__file__).parent
    digest = sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.read_bytes())
    return f"{version('mani_skill2_real2sim')}+{digest.hexdigest()[:12]}"


def notes(data: Path, shader: str) -> tuple[str, ...]:
    """What makes scores differ from published ones."""
    files = map(Path, stand_ins(data))
    names = [file.stem if file.parent.name == "stages" else file.parent.name for file in files]
    found = [f"stand-in assets: {', '.join(names)}"] if names else []
    return tuple(found + (["rasterised where published tasks are ray traced"] if shader == "ibl" else []))


def make_simulator() -> SimplerEnvSimulator:
    """With the assets that MS2_REAL2SIM_ASSET_DIR names, and the shader of SIMPLER_ENV_SHADER."""
    return SimplerEnvSimulator(mani_skill2_real2sim.ASSET_DIR, os.environ.get(SHADER, "rt"))
