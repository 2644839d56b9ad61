"""Tabletop-Instruct as a measurement: which trials are run, results that survive an interruption, rates of them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from instructvla.evaluation.intervals import wilson_interval
from instructvla.evaluation.tabletop.instruct import TASKS_FILE, InstructTask, instruct_task, instruct_tasks, trial
from instructvla.evaluation.tabletop.phrases import Group, Level
from instructvla.evaluation.tabletop.policies import Policy
from instructvla.evaluation.tabletop.rollout import ENVIRONMENTS, Assignment, Outcome, parallel_rollouts, rollouts
from instructvla.evaluation.tabletop.world import MAX_STEPS
from instructvla.processing.action_normalization import nearest

LEVEL_NAMES = {"atomic": Level.ATOMIC, "aggregation": Level.AGGREGATION, "situated": Level.SITUATED}
TRIALS_PER_LEVEL = 200
SETTINGS, TRIALS = "settings.json", "trials.jsonl"
LABELS = ("name",)  # settings that only say what something is called


@dataclass(frozen=True)
class Rate:
    """Successes of some trials."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        return self.successes / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of 95 %."""
        return wilson_interval(self.successes, self.trials)

    def __str__(self) -> str:
        if not self.trials:
            return "–"
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}–{100 * high:.1f}]"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        low, high = self.interval
        rate = self.value if self.trials else None
        return {"successes": self.successes, "trials": self.trials, "rate": rate, "low": low, "high": high}


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
    known = {}
    if folder is not None:
        known = open_results(folder, {**policy.settings, **benchmark_settings(), "max_steps": max_steps})
    done = {key: known[key] for key in trials if key in known}
    waiting = (Assignment(name, i, trial(instruct_task(name), i)) for name, i in trials if (name, i) not in done)
    if workers == 1:
        outcomes = rollouts(policy, waiting, environments, max_steps)
    else:
        outcomes = parallel_rollouts(make_policy, list(waiting), workers, environments, max_steps)
    with tqdm(total=len(trials), initial=len(done), unit="trial", disable=None if show_progress else True) as bar:
        for outcome in kept(outcomes, folder):
            done[outcome.name, outcome.index] = outcome
            bar.update()
            bar.set_postfix(success=f"{sum(bool(one.success) for one in done.values()) / len(done):.0%}")
    return [done[key] for key in trials]


def kept(outcomes: Iterable[Outcome], folder: Path | None) -> Iterator[Outcome]:
    """The outcomes, each written to the folder first."""
    if folder is None:
        yield from outcomes
        return
    with (folder / TRIALS).open("a", encoding="utf-8") as file:
        for outcome in outcomes:
            file.write(json.dumps(outcome.record(), ensure_ascii=False) + "\n")
            file.flush()
            yield outcome


def benchmark_settings() -> dict[str, Any]:
    """What outcomes follow from beside the policy."""
    return {
        "tasks_sha256": hashlib.sha256(TASKS_FILE.read_bytes()).hexdigest()[:16],
        "mujoco": version("mujoco"),
    }


def open_results(folder: Path, settings: Mapping[str, Any]) -> dict[tuple[str, int], Outcome]:
    """What a folder already has; a new folder gets its settings.

    Raises:
        ValueError: if it has results of other settings.
    """
    place = folder / SETTINGS
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"{folder} holds something else; give a new folder for the results.")
        place.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return {}
    saved = read_settings(folder)
    names = [name for name in {**saved, **settings} if name not in LABELS and saved.get(name) != settings.get(name)]
    if names:
        differences = "; ".join(f"{name} was {saved.get(name)!r}, is {settings.get(name)!r}" for name in names)
        raise ValueError(f"{folder} has results of other settings: {differences}. Give another folder.")
    repair(folder / TRIALS)
    return {(one.name, one.index): one for one in read_outcomes(folder)}


def repair(file: Path) -> None:
    """Cuts off a last line that an interruption left half-written."""
    content = file.read_bytes() if file.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("r+b") as stream:
            stream.truncate(whole)


def read_settings(folder: Path) -> dict[str, Any]:
    """What a folder's results follow from.

    Raises:
        ValueError: if it has none.
    """
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is no folder of results ({error}); `instructvla tabletop` makes them.") from error


def read_outcomes(folder: Path) -> list[Outcome]:
    """What a folder has so far.

    Raises:
        ValueError: for a line that is no outcome.
    """
    file, outcomes = folder / TRIALS, []
    if not file.exists():
        return outcomes
    *lines, _unfinished = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            outcomes.append(Outcome.of_record(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}, line {number} is no outcome ({error}); delete that line.") from error
    return outcomes


def rates(outcomes: Iterable[Outcome]) -> dict[str, Rate]:
    """By level and by category, in the benchmark's order; a level comes before its categories.

    Raises:
        ValueError: for an outcome of a task that the benchmark doesn't have.
    """
    found: dict[str, list[bool]] = {name: [] for level in Level for name in (level, *groups_of(level))}
    for outcome in outcomes:
        task = instruct_task(outcome.name)
        for name in {task.level, task.category}:
            found[name].append(bool(outcome.success))
    return {str(name): Rate(sum(some), len(some)) for name, some in found.items() if some}


def groups_of(level: Level) -> list[Group]:
    return [group for group in Group if group.level is level]
