"""Tabletop-Instruct as a measurement: which trials are run, results that survive an interruption, rates of them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Ledger, Outcome
from instructvla.evaluation.tabletop.instruct import TASKS_FILE, InstructTask, instruct_task, instruct_tasks, trial
from instructvla.evaluation.tabletop.phrases import Group, Level
from instructvla.evaluation.tabletop.policies import Policy
from instructvla.evaluation.tabletop.rollout import ENVIRONMENTS, Assignment, parallel_rollouts, rollouts
from instructvla.evaluation.tabletop.world import MAX_STEPS
from instructvla.processing.action_normalization import nearest

LEVEL_NAMES = {"atomic": Level.ATOMIC, "aggregation": Level.AGGREGATION, "situated": Level.SITUATED}
TRIALS_PER_LEVEL = 200


def select_tasks(names: Iterable[str] = ()) -> tuple[InstructTask, ...]:
    """Tasks of levels (atomic, aggregation, situated), of categories, or by their own names; all by default.

    Raises:
        ValueError: for a name that nothing has; it lists what exists.
    """
    chosen: dict[str, InstructTask] = {}
    for name in names:
        level = LEVEL_NAMES.get(name, name)
        found = [task for task in instruct_tasks() if name == task.name or level in (task.level, task.category)]
        if not found:
            raise ValueError(unknown_task(name))
        chosen |= {task.name: task for task in found}
    return tuple(chosen.values()) or instruct_tasks()


def unknown_task(name: str) -> str:
    groups, tasks = [*LEVEL_NAMES, *map(str, Group)], [task.name for task in instruct_tasks()]
    return (
        f"there is no task, level or category {name!r}, the nearest is {nearest(name, [*groups, *tasks])!r}; levels "
        f"and categories are {', '.join(groups)}; tasks are {', '.join(tasks)}."
    )


def trials_of(tasks: Sequence[InstructTask], per_level: int | None = TRIALS_PER_LEVEL) -> list[tuple[str, int]]:
    """(task, index) of the trials, first those of index 0: the start of the list is a fair sample of it.

    Args:
        per_level: least number of trials of each level that has tasks here, equally many per task; None: of each task
            as many as the benchmark's file says.
    """
    if per_level is not None and per_level < 1:
        raise ValueError(f"the number of trials must be at least 1, got {per_level}.")
    levels = [task.level for task in tasks]
    counts = {
        task.name: task.trials if per_level is None else -(-per_level // levels.count(task.level)) for task in tasks
    }
    return [(name, i) for i in range(max(counts.values())) for name, count in counts.items() if i < count]


def run_benchmark(
    make_policy: Callable[[], Policy],
    trials: Sequence[tuple[str, int]],
    folder: Path | None = None,
    environments: int = ENVIRONMENTS,
    workers: int = 1,
    max_steps: int = MAX_STEPS,
    show_progress: bool = False,
) -> list[Outcome]:
    """Outcomes of trials, in the order of `trials`; what the folder already has isn't run again.

    Args:
        make_policy: gives the policy; picklable if there are several workers.
        trials: (task, index) each, as `trials_of` gives them.
        folder: keeps every outcome as soon as it is known.
        environments: robots at once in each process.
        workers: processes.
        max_steps: after which an episode has failed.
        show_progress: a bar with the rate so far.

    Raises:
        ValueError: if the folder has results of other settings, or an option is out of range.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
    policy = make_policy()
    ledger = None
    if folder is not None:
        ledger = Ledger.open(folder, {**policy.settings, **benchmark_settings(), "max_steps": max_steps})
    done = {key: ledger.outcomes[key] for key in trials if ledger is not None and key in ledger.outcomes}
    waiting = (assignment(name, i) for name, i in trials if (name, i) not in done)
    if workers == 1:
        outcomes = rollouts(policy, waiting, environments, max_steps)
    else:
        outcomes = parallel_rollouts(make_policy, list(waiting), workers, environments, max_steps)
    with tqdm(total=len(trials), initial=len(done), unit="trial", disable=None if show_progress else True) as bar:
        for outcome in outcomes:
            if ledger is not None:
                ledger.add(outcome)
            done[outcome.key] = outcome
            bar.update()
            bar.set_postfix(success=f"{sum(bool(one.success) for one in done.values()) / len(done):.0%}")
    return [done[key] for key in trials]


def assignment(name: str, index: int) -> Assignment:
    """A trial of the benchmark, counted towards its level and its category."""
    task = instruct_task(name)
    groups = tuple(dict.fromkeys((str(task.level), str(task.category))))
    return Assignment(name, index, trial(task, index), groups=groups)


def benchmark_settings() -> dict[str, Any]:
    """What outcomes follow from beside the policy."""
    return {
        "benchmark": "tabletop",
        "tasks_sha256": hashlib.sha256(TASKS_FILE.read_bytes()).hexdigest()[:16],
        "mujoco": version("mujoco"),
    }


def rates(outcomes: Iterable[Outcome]) -> dict[str, Rate]:
    """By level and by category, in the benchmark's order; a level comes before its categories.

    Raises:
        ValueError: for an outcome of a task that the benchmark doesn't have.
    """
    found: dict[str, list[bool]] = {name: [] for level in Level for name in (level, *groups_of(level))}
    for outcome in outcomes:
        task = instruct_task(outcome.task)
        for name in {task.level, task.category}:
            found[name].append(bool(outcome.success))
    return {str(name): Rate(sum(some), len(some)) for name, some in found.items() if some}


def groups_of(level: Level) -> list[Group]:
    return [group for group in Group if group.level is level]
