"""The scripted expert in the WidowX tasks of SimplerEnv and SimplerEnv-Instruct, to prove a set-up without a policy.

The simulator's interpreter runs it; the policy "replay:FOLDER" does what it recorded again:

python -m instructvla.evaluation.simulators.simpler_env_demonstration put_carrot/visual_matching FOLDER --tries 4
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instructvla.evaluation.recordings import Recording
from instructvla.evaluation.simulators.demonstration_command import run
from instructvla.evaluation.simulators.simpler_env_benchmark import simpler_env_trials
from instructvla.evaluation.simulators.simpler_instruct_benchmark import instruct_tasks, instruct_trials
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.widowx_expert import Handling, Poses
from instructvla.evaluation.simulators.widowx_expert import demonstrate as demonstrate_with

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


def poses(environment: Any) -> Poses:
    """Where things are now in an environment of mani_skill2_real2sim's class `PutOnInSceneEnv`."""
    seen = {
        "base": environment.agent.robot.pose,
        "source": environment.episode_source_obj.pose,
        "destination": environment.episode_target_obj.pose,
    }
    target = environment.agent.controller.get_state()["arm"]["target_pose"]
    places = {name: np.concatenate([pose.p, pose.q]).astype(np.float64) for name, pose in seen.items()}
    return Poses(target=np.asarray(target, np.float64), **places)


def demonstrate(simulator: "SimplerEnvSimulator", trial: Trial) -> Recording:
    """One episode of the expert.

    Raises:
        ValueError: a task that it can't do.
    """
    if trial.task not in HANDLINGS:
        raise ValueError(f"the scripted expert does {', '.join(HANDLINGS)}; got {trial.task!r}.")
    return demonstrate_with(simulator, trial, HANDLINGS[trial.task], lambda _: poses(simulator.environment.unwrapped))[
        0
    ]


def trials(names: Sequence[str], per_task: int) -> list[Trial]:
    """Of either benchmark."""
    return (instruct_trials if set(names) <= set(instruct_tasks()) else simpler_env_trials)(names, per_task)


def main() -> None:
    from instructvla.evaluation.simulators.simpler_env_simulator import make_simulator

    simulator = make_simulator()
    run(__doc__, trials, lambda trial: demonstrate(simulator, trial))


if __name__ == "__main__":
    main()
