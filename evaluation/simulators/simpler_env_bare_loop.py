"""A plain loop around SimplerEnv as the published evaluator's, without this package: what the adapter must equal.

SIMULATOR/bin/python evaluation/simulators/simpler_env_bare_loop.py TRIAL.json COMMANDS.npy OUTCOME.npz
"""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path

import gymnasium
import mani_skill2_real2sim.envs  # noqa: F401  registers the environments
import numpy as np
from mani_skill2_real2sim.utils.common import flatten_state_dict
from sapien.core import Pose
from transforms3d.euler import euler2quat

GOOGLE_ARM = "arm_pd_ee_delta_pose_align_interpolate_by_planner"
GOOGLE_GRIPPER = "gripper_pd_joint_target_delta_pos_interpolate_by_planner"
WIDOWX = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"


def main(trial_file, commands_file, outcome_file):
    trial = json.loads(Path(trial_file).read_text(encoding="utf-8"))
    options, data = trial["options"], os.environ["MS2_REAL2SIM_ASSET_DIR"]
    google = options["robot"].startswith("google")
    camera = "overhead_camera" if google else "3rd_view_camera"
    arguments = dict(options["build"])
    if os.environ.get("SIMPLER_ENV_SHADER") == "ibl":  # rasterise what is published as ray traced
        arguments.pop("shader_dir", None)
    if options["overlay"]:
        arguments["rgb_overlay_path"] = f"{data}/real_inpainting/{options['overlay']}"
        arguments["rgb_overlay_cameras"] = [camera]
    environment = gymnasium.make(
        options["env"],
        **arguments,
        obs_mode="rgbd",
        robot=options["robot"],
        sim_freq=options["sim_freq"],
        control_mode=f"{GOOGLE_ARM}_{GOOGLE_GRIPPER}" if google else WIDOWX,
        control_freq=options["control_freq"],
        max_episode_steps=trial["max_steps"],
        scene_name=options["scene"],
        camera_cfgs={"add_segmentation": True},
    )
    turn = (Pose(q=euler2quat(0, 0, options["robot_yaw"])) * Pose(q=[0, 0, 0, 1])).q
    objects = (
        {"init_xy": np.array(options["object_xy"])}
        if "object_xy" in options
        else {"episode_id": options["object_episode"]}
    )
    robot = {"init_xy": np.array(options["robot_xy"]), "init_rot_quat": turn}
    observation, _ = environment.reset(options={"robot_init_options": robot, "obj_init_options": objects})
    bare, commands = environment.unwrapped, np.load(commands_file)
    seen = {name: [] for name in ("states", "rewards", "successes", "pictures", "proprioception", "instructions")}
    for command in (None, *commands):
        reward, success = 0.0, False
        if command is not None:
            observation, reward, success, _, _ = environment.step(command)
        controller = flatten_state_dict(bare.agent.controller.get_state())
        seen["states"].append(np.hstack([bare.get_state(), controller]))
        seen["rewards"].append(reward)
        seen["successes"].append(success)
        seen["pictures"].append(sha256(observation["image"][camera]["rgb"].tobytes()).hexdigest())
        seen["proprioception"].append(observation["agent"]["eef_pos"])
        seen["instructions"].append(bare.get_language_instruction())
    np.savez(outcome_file, commands=commands, **seen)
    environment.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
