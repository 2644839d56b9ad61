"""Scripted experts in tasks of SimplerEnv and SimplerEnv-Instruct, to prove a set-up without a trained policy.

The simulator's interpreter runs them; the policy "replay:FOLDER" does what they recorded again:

python -m instructvla.evaluation.simulators.simpler_env_demonstration put_carrot/visual_matching FOLDER --tries 4
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from instructvla.evaluation.recordings import Recording
from instructvla.evaluation.simulators import demonstration, google_robot_expert, widowx_expert
from instructvla.evaluation.simulators.google_robot_expert import Grip
from instructvla.evaluation.simulators.simpler_env_benchmark import simpler_env_trials
from instructvla.evaluation.simulators.simpler_instruct_benchmark import instruct_tasks, instruct_trials
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.widowx_expert import Handling, Poses

if TYPE_CHECKING:  # imports SAPIEN
    from instructvla.evaluation.simulators.simpler_env_simulator import SimplerEnvSimulator

HANDLINGS = {
    "put_spoon/visual_matching": Handling(0.05, grasp_m=0.01),
    "put_carrot/visual_matching": Handling(0.05),
    "stack_blocks/visual_matching": Handling(0.04, long=False),
    "AltDryEgglpantInSceneEnv-v0": Handling(0.12),
    "AltDryOrangeInSceneEnv-v0": Handling(0.12, long=False),
    "AltPutSponeOnPlateInScene-v0": Handling(0.05, grasp_m=0.01),
    "AltPutOrangeOnPlateInScene-v0": Handling(0.05, long=False),
}
STANDING_CANS = ("pick_coke_can/variant_aggregation/standing/base", "FreeGraspSingleOpened7upCanInScene-v0")


def poses(environment: Any) -> Poses:
    """Where things are now in an environment of mani_skill2_real2sim's class `PutOnInSceneEnv`."""
    target = environment.agent.controller.get_state()["arm"]["target_pose"]
    return Poses(
        base=_vector(environment.agent.robot.pose),
        target=np.asarray(target, np.float64),
        source=_vector(environment.episode_source_obj.pose),
        destination=_vector(environment.episode_target_obj.pose),
    )


def grip(environment: Any) -> Grip:
    """Where things are now in an environment of mani_skill2_real2sim's class `GraspSingleInSceneEnv`."""
    to_base = environment.agent.robot.pose.inv()
    return Grip(_vector(to_base * environment.agent.ee_pose), _vector(to_base * environment.obj_pose)[:3])


def demonstrate(simulator: "SimplerEnvSimulator", trial: Trial) -> Recording:
    """One episode of the task's expert.

    Raises:
        ValueError: a task that none can do.
    """
    if trial.task in HANDLINGS:
        make_expert, state = partial(widowx_expert.Expert, HANDLINGS[trial.task]), poses
    elif trial.task in STANDING_CANS:
        make_expert, state = google_robot_expert.Expert, grip
    else:
        known = ", ".join([*HANDLINGS, *STANDING_CANS])
        raise ValueError(f"the scripted experts do {known}; got {trial.task!r}.")
    return demonstration.demonstrate(simulator, trial, make_expert, lambda _: state(simulator.environment.unwrapped))[0]


def trials(names: Sequence[str], per_task: int) -> list[Trial]:
    """Of either benchmark."""
    return (instruct_trials if set(names) <= set(instruct_tasks()) else simpler_env_trials)(names, per_task)


def _vector(pose: Any) -> np.ndarray:
    """(7,) float64 position (m) and unit quaternion (wxyz) of a pose of SAPIEN's."""
    return np.concatenate([pose.p, pose.q]).astype(np.float64)


def main() -> None:
    from instructvla.evaluation.simulators.simpler_env_simulator import make_simulator

    simulator = make_simulator()
    demonstration.run_command(__doc__, trials, lambda trial: demonstrate(simulator, trial))


if __name__ == "__main__":
    main()
