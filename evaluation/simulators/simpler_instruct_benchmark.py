"""SimplerEnv-Instruct (paper section 4.2): 50 tasks of instruction aggregation, 30 of situated reasoning, 1,138 trials.

The authors publish two scripts for situated reasoning that differ in two tasks: situated.sh, whose 80 tasks are run by
default, and situated_1.sh to situated_3.sh, whose 80 tasks "split_scripts" names. Success is what holds after the last
step.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.simpler_env_benchmark import INSTALLATION, NEEDS
from instructvla.evaluation.simulators.simpler_env_tables import instruct_summary
from instructvla.evaluation.simulators.simpler_env_trials import Grid, SimplerTask, select_tasks, task_trials
from instructvla.evaluation.simulators.simulator import Trial

TASKS_FILE = Path(__file__).parent / "simpler_instruct_tasks.yaml"
GRID_FIELDS = ("robot_x", "robot_y", "robot_yaw", "object_x", "object_y", "layouts", "overlay")
OTHER_VARIANT = {"all": "plate", "split_scripts": "dry"}  # set of 80 tasks → variant that it leaves out


@cache
def _content() -> dict[str, Any]:
    return yaml.safe_load(TASKS_FILE.read_text(encoding="utf-8"))


@cache
def categories() -> Mapping[str, str]:
    """Category → its level, in the table's order."""
    return {name: level for level, names in _content()["categories"].items() for name in names}


@cache
def instruct_tasks() -> Mapping[str, SimplerTask]:
    """Name → task, of both variants."""
    setups = _content()["setups"]
    return {entry["name"]: _task(entry, setups[entry["setup"]]) for entry in _content()["tasks"]}


def task_sets() -> dict[str, list[SimplerTask]]:
    """The two published sets of 80 tasks."""
    variants = {entry["name"]: entry.get("variant") for entry in _content()["tasks"]}
    return {
        name: [task for task in instruct_tasks().values() if variants[task.name] != other]
        for name, other in OTHER_VARIANT.items()
    }


def instruct_trials(names: Sequence[str] = (), per_task: int | None = None) -> list[Trial]:
    """Trials of tasks, levels, categories or one of the two published sets; first those of index 0.

    A level or a category takes its tasks from the set "all" (situated.sh).

    Args:
        names: of tasks, levels, categories or sets; all 80 tasks of situated.sh and aggregation.sh by default.
        per_task: number of trials; None: each task's published number. More start again from the first, with new noise.

    Raises:
        ValueError: a name that SimplerEnv-Instruct doesn't have, or no trial.
    """
    sets = task_sets()
    groups = {group: [task for task in sets["all"] if group in task.groups] for group in (*LEVELS, *categories())}
    tasks = list(instruct_tasks().values())
    return task_trials(select_tasks(tasks, names or ("all",), "SimplerEnv-Instruct", sets | groups), per_task)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Levels as in Table 2 with the paper's numbers beside, then categories."""
    return instruct_summary(outcomes, categories(), sum(len(task.starts) for task in task_sets()["all"]))


def _task(entry: Mapping[str, Any], setup: Mapping[str, Any]) -> SimplerTask:
    grid = Grid(**{name: _range(setup[name]) for name in GRID_FIELDS if name in setup})
    return SimplerTask(
        name=entry["name"],
        environment=entry["name"].split("/")[0],
        scene=setup["scene"],
        grids=(grid,),
        max_steps=setup["max_steps"],
        groups=(categories()[entry["category"]], entry["category"]),
        robot=setup.get("robot", "google_robot_static"),
        build=setup.get("build", {}),
        instruction=entry["instructions"][0],
    )


def _range(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


LEVELS = tuple(dict.fromkeys(categories().values()))

BENCHMARK = Benchmark(
    name="simpler_instruct",
    title="SimplerEnv-Instruct (SAPIEN 2.2.2)",
    adapter="instructvla.evaluation.simulators.simpler_env_simulator",
    trials=instruct_trials,
    groups=(*LEVELS, *categories()),
    installation=INSTALLATION,
    needs=NEEDS,
    summary=summary,
)
