"""Episodes of SimplerEnv by a bare loop as the published evaluator's, to compare the adapter with.

SIMULATOR/bin/python tests/simpler_env_bare_loop.py TRIALS.json COMMANDS.npy RESULTS.json
"""

import json
import os
import sys
from hashlib import sha256

import gymnasium
import mani_skill2_real2sim.envs  # noqa: F401  registers the environments
import numpy as np
from sapien.core import Pose
from transforms3d.euler import euler2quat

GOOGLE_ARM = "arm_pd_ee_delta_pose_align_interpolate_by_planner"
GOOGLE_GRIPPER = "gripper_pd_joint_target_delta_pos_interpolate_by_planner"


def episode(trial, commands):
    options, data = trial["options"], os.environ["MS2_REAL2SIM_ASSET_DIR"]
    google = options["robot"].startswith("google")
    camera = "overhead_camera" if google else "3rd_view_camera"
    widowx = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"
    arguments = dict(options["build"])
    if options["overlay"]:
        arguments["rgb_overlay_path"] = f"{data}/real_inpainting/{options['overlay']}"
        arguments["rgb_overlay_cameras"] = [camera]
    environment = gymnasium.make(
        options["env"],
        **arguments,
        obs_mode="rgbd",
        robot=options["robot"],
        sim_freq=options["sim_freq"],
        control_mode=f"{GOOGLE_ARM}_{GOOGLE_GRIPPER}" if google else widowx,
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
    steps = []
    for command in (None, *commands):
        reward, success = 0.0, False
        if command is not None:
            observation, reward, success, _, _ = environment.step(command)
        steps.append(
            {
                "state": environment.unwrapped.get_state().tolist(),
                "image": sha256(observation["image"][camera]["rgb"].tobytes()).hexdigest(),
                "proprioception": observation["agent"]["eef_pos"].tolist(),
                "instruction": environment.unwrapped.get_language_instruction(),
                "reward": float(reward),
                "success": bool(success),
            }
        )
    environment.close()
    return steps


if __name__ == "__main__":
    trials_file, commands_file, results_file = sys.argv[1:]
    with open(trials_file, encoding="utf-8") as file:
        trials = json.load(file)
    commands = np.load(commands_file)
    results = []
    for trial in trials:
        results.append(episode(trial, commands))
        with open(results_file, "w", encoding="utf-8") as file:
            json.dump(results, file)
