"""SIMPLER's four WidowX tasks (Li et al. 2024) as ManiSkill3's digital twins (Tao et al. 2024), 24 fixed episodes each.

Its physics and pictures are not those of SimplerEnv, whose numbers the papers publish, so scores are labelled as
ManiSkill3's. As there, the last control step decides.
"""

from collections.abc import Sequence

from instructvla.evaluation.simulators.benchmark_definition import Benchmark, Installation
from instructvla.evaluation.simulators.maniskill3_tasks import EPISODES, TASKS, find_task
from instructvla.evaluation.simulators.simulator import Trial


def maniskill3_trials(names: Sequence[str] = (), per_task: int | None = None) -> list[Trial]:
    """Trials of some tasks, of all four by default; first those of index 0.

    Args:
        names: of tasks.
        per_task: number of trials; None: the published 24. More start again from the first, with new noise.

    Raises:
        ValueError: an unknown task, or no trial.
    """
    per_task = EPISODES if per_task is None else per_task
    if per_task < 1:
        raise ValueError(f"the number of trials per task must be at least 1, got {per_task}.")
    tasks = {name: find_task(name) for name in names or TASKS}
    return [
        Trial(
            task=name,
            index=index,
            seed=index,
            robot="widowx",
            max_steps=task.max_steps,
            groups=(name,),
            stops_at_success=False,
            options={"episode": index % EPISODES},
        )
        for index in range(per_task)
        for name, task in tasks.items()
    ]


BENCHMARK = Benchmark(
    name="maniskill3",
    title="SIMPLER's WidowX tasks in ManiSkill3 (not SimplerEnv)",
    adapter="instructvla.evaluation.simulators.maniskill3_simulator",
    trials=maniskill3_trials,
    groups=tuple(TASKS),
    installation=Installation(
        requirements=(
            "mani-skill==3.0.1",
            "sapien==3.0.3",
            "gymnasium==1.4.0",
            "numpy==2.4.6",
            "torch==2.15.0",
            "transforms3d==0.4.2",
        ),
        libraries=("libvulkan1", "mesa-vulkan-drivers (25 or newer; Debian bookworm has it in its backports)"),
    ),
    published={  # Table 2, measured in SimplerEnv; S.: with the robot's state
        "InstructVLA Expert, SimplerEnv": {"spoon": 45.8, "carrot": 20.8, "stack": 20.8},
        "InstructVLA Expert (S.), SimplerEnv": {"spoon": 50.0, "carrot": 50.0, "stack": 25.0},
        "InstructVLA Generalist, SimplerEnv": {"spoon": 33.3, "carrot": 29.2, "stack": 12.5},
        "InstructVLA Generalist (S.), SimplerEnv": {"spoon": 50.0, "carrot": 41.7, "stack": 12.5},
    },
    needs={"MS_ASSET_DIR": "the folder whose `data/` holds ManiSkill's assets bridge_v2_real2sim and widowx250s"},
)
