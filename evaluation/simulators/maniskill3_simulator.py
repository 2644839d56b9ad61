"""ManiSkill3's WidowX tasks behind the simulators' contract; imported in the simulator's own process.

Physics (PhysX) and pictures (Vulkan, Mesa's lavapipe) run on the CPU, so that an episode is the same everywhere.
"""

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import mani_skill.envs  # noqa: F401  registers the environments
import numpy as np
import torch
from mani_skill import ASSET_DIR
from mani_skill.envs.tasks.digital_twins.base_env import BaseDigitalTwinEnv

from instructvla.evaluation.robot_conventions import axis_angle_to_intrinsic_euler
from instructvla.evaluation.simulators.maniskill3_state import BridgeState
from instructvla.evaluation.simulators.maniskill3_tasks import EPISODES, PRIMARY, find_task
from instructvla.evaluation.simulators.simulator import Observation, Trial

CAMERA = "3rd_view_camera"
OBSERVED = "rgb+segmentation"  # segmentation is what the photo behind the robot is put in by
PACKAGES = ("mani-skill", "sapien", "gymnasium", "numpy", "torch")
ASSETS = {  # folder below the assets → what `mani_skill.utils.download_asset` calls it
    "tasks/bridge_v2_real2sim_dataset": "bridge_v2_real2sim",
    "robots/widowx": "widowx250s",
}
STAGES = "tasks/bridge_v2_real2sim_dataset/stages"
SCANNED_STAGE = 1_000_000  # bytes: the scanned tables are larger, plain boxes that stand in for them smaller
STAND_IN = "a plain box stands in for the scanned table; behind the photo it shows only in shadows and reflections"
FINGERS = slice(6, 8)


class ManiSkill3Bridge:
    """The four tasks, one environment each, made when it is first asked for.

    Raises:
        ValueError: assets are missing.
    """

    def __init__(self):
        check_assets(ASSET_DIR)
        torch.set_num_threads(1)  # tiny tensors: more threads would only wait for each other
        self.versions: Mapping[str, str] = {name: version(name) for name in PACKAGES}
        self.notes: tuple[str, ...] = stage_notes(ASSET_DIR / STAGES)
        self._environments: dict[str, BaseDigitalTwinEnv] = {}
        self._grids: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._env: BaseDigitalTwinEnv | None = None

    def reset(self, trial: Trial) -> Observation:
        """Start an episode.

        Args:
            trial: with either option "episode", a number of the environment's grid, or "positions" and
                "orientations" as `random_placement` gives them. With "pictures": False none are drawn, which takes
                most of a step's time; all else is the same.

        Raises:
            ValueError: an unknown task or option, or no Vulkan driver to draw with.
        """
        env, options = self._environment(trial.task), dict(trial.options)
        env._obs_mode = OBSERVED if options.pop("pictures", True) else "none"
        place = self._place(trial.task, options)
        # Built anew, so that nothing of the last episode lasts in PhysX.
        pictures, info = env.reset(seed=trial.seed, options={"reconfigure": True, **place})
        self._env = env
        return self._observation(pictures, info)

    def step(self, command: np.ndarray) -> Observation:
        """One control step.

        Args:
            command: (7,) translation (m) and axis-angle (rad) in the base's frame, gripper 1 open, -1 closed.
        """
        if self._env is None:
            raise ValueError("reset an episode before the first step.")
        command = np.asarray(command, np.float64)
        if command.shape != (7,):
            raise ValueError(f"a command has shape (7,), got {command.shape}.")
        # The controller reads the three angles of a rotation as those about its own axes.
        action = np.concatenate([command[:3], axis_angle_to_intrinsic_euler(command[3:6]), command[6:]])
        pictures, reward, _, _, info = self._env.step(torch.tensor(action[None], dtype=torch.float32))
        return self._observation(pictures, info, float(reward[0]))

    def close(self) -> None:
        for env in self._environments.values():
            env.close()

    def _environment(self, task: str) -> BaseDigitalTwinEnv:
        if task not in self._environments:
            self._environments[task] = env = make_environment(find_task(task).environment)
            self._grids[task] = (env.xyz_configs, env.quat_configs)
        return self._environments[task]

    def _place(self, task: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Puts a placement, or the grid, into a task's environment; returns the options of its reset."""
        env = self._environments[task]
        if set(options) == {"episode"}:
            if options["episode"] not in range(EPISODES):
                raise ValueError(f"episode is {options['episode']!r}; the grid has 0 to {EPISODES - 1}.")
            env.xyz_configs, env.quat_configs = self._grids[task]
            return {"episode_id": torch.tensor([options["episode"]])}
        if set(options) != {"positions", "orientations"}:
            raise ValueError(
                f"the options of {task} are {', '.join(options) or 'none'}; give either episode, or positions "
                "and orientations."
            )
        env.xyz_configs = torch.tensor([options["positions"]], dtype=torch.float32)  # (1, 2, 3)
        env.quat_configs = torch.tensor([options["orientations"]], dtype=torch.float32)  # (1, 2, 4)
        return {"episode_id": torch.tensor([0])}

    def _observation(self, pictures: Mapping[str, Any], info: Mapping[str, Any], reward: float = 0.0) -> Observation:
        env = self._env
        return Observation(
            images={PRIMARY: pictures["sensor_data"][CAMERA]["rgb"][0].numpy()} if pictures else {},
            instruction=env.get_language_instruction()[0],
            proprioception=proprioception(env),
            state=state_of(env).vector(),
            reward=reward,
            success=bool(info["success"][0]),
        )


def make_environment(name: str) -> BaseDigitalTwinEnv:
    """
    Raises:
        ValueError: an asset is missing, or no Vulkan driver draws on the CPU.
    """
    # The class keeps these two for all its environments: one would show another's photo, and keep its objects.
    BaseDigitalTwinEnv._objects_to_remove_from_greenscreen = []
    try:
        env = gymnasium.make(name, obs_mode=OBSERVED, sim_backend="cpu", render_backend="cpu", num_envs=1)
    except RuntimeError as error:
        raise ValueError(
            f"{name} can't be made ({error}); pictures need a Vulkan driver for the CPU: Debian's libvulkan1 and "
            "mesa-vulkan-drivers, 25 or newer, and VK_ICD_FILENAMES unset or naming its lvp_icd file."
        ) from error
    except FileNotFoundError as error:
        raise ValueError(f"{name} lacks an asset ({error}); download bridge_v2_real2sim again.") from error
    env = env.unwrapped  # whose episodes end by the trial's steps
    env._rgb_overlay_images = dict(env._rgb_overlay_images)
    return env


def check_assets(folder: Path) -> None:
    """
    Raises:
        ValueError: a folder is missing; ManiSkill itself would ask on the terminal whether to download it.
    """
    for name, asset in ASSETS.items():
        if not (folder / name).is_dir():
            given = os.environ.get("MS_ASSET_DIR")
            raise ValueError(
                f"ManiSkill3's assets {asset} are not in {folder / name} (MS_ASSET_DIR is {given or 'not set'}); name "
                f"the folder above `data/` in MS_ASSET_DIR, or run `python -m mani_skill.utils.download_asset {asset}`."
            )


def stage_notes(stages: Path) -> tuple[str, ...]:
    """What the published assets have and these haven't."""
    sizes = [path.stat().st_size for path in stages.glob("*.glb")]
    return (STAND_IN,) if sizes and max(sizes) < SCANNED_STAGE else ()


def proprioception(env: BaseDigitalTwinEnv) -> np.ndarray:
    """SimplerEnv's `agent.eef_pos`, (8,) float64: position (m), quaternion wxyz, opening (1 = open), base's frame."""
    fingers = env.agent.robot.get_qpos()[0, FINGERS].double().numpy()
    low, high = env.agent.robot.get_qlimits()[0, FINGERS].double().numpy().T
    opening = 1 - max(float(np.mean((high - fingers) / (high - low))), 0.0)
    return np.append(env.agent.controller.controllers["arm"].ee_pose_at_base.raw_pose[0].double().numpy(), opening)


def state_of(env: BaseDigitalTwinEnv) -> BridgeState:
    source, destination = env.objs[env.source_obj_name], env.objs[env.target_obj_name]
    parts = {
        "base": env.agent.robot.pose.raw_pose,
        "target": env.agent.controller.get_state()["arm"]["target_pose"],
        "source": source.pose.raw_pose,
        "destination": destination.pose.raw_pose,
        "source_velocity": torch.cat([source.linear_velocity, source.angular_velocity], dim=1),
        "destination_velocity": torch.cat([destination.linear_velocity, destination.angular_velocity], dim=1),
        "joints": env.agent.robot.get_qpos(),
        "joint_velocities": env.agent.robot.get_qvel(),
    }
    return BridgeState(**{name: part[0].double().numpy() for name, part in parts.items()})


def make_simulator() -> ManiSkill3Bridge:
    """
    Raises:
        ValueError: assets are missing.
    """
    return ManiSkill3Bridge()
