"""Tabletop-Instruct, a benchmark in the shape of SimplerEnv-Instruct (paper section 4.2): tasks and their trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.meanings import Kinded, kinded
from instructvla.evaluation.tabletop.phrases import MAX_WORDS, Group, Level, expressions, groups_for, handles_unseen
from instructvla.evaluation.tabletop.sampling import SPLITS, CrowdedTableError, arrange, combination_split
from instructvla.evaluation.tabletop.scene import Placed, Scene, Skill, Task
from instructvla.processing.action_normalization import nearest

TASKS_FILE = Path(__file__).parent / "instruct.yaml"
OPENINGS = {None: None, "closed": 0.0, "open": 1.0}
ATTEMPTS = 200  # at a scene in which the instruction means the task alone
FIELDS = ("name", "level", "category", "instruction", "scene", "task", "trials")


@dataclass(frozen=True)
class InstructTask:
    """One task of the benchmark.

    Args:
        name: unique; its trials' seeds follow from it.
        level: "atomic", "instruction_aggregation" or "situated_reasoning".
        group: which kind of instruction it is; None for atomic tasks.
        instruction: what the policy is told.
        things: (item, colour) that stand in every scene.
        receptacles: likewise.
        drawer: "open", "closed", or None for no cabinet.
        distractors: number of further things.
        task: what is to be done.
        rooms: split of tables, rooms and light, "train" or "test".
        trials: number of them.
    """

    name: str
    level: Level
    group: Group | None
    instruction: str
    things: tuple[Kinded, ...]
    receptacles: tuple[Kinded, ...]
    drawer: str | None
    distractors: int
    task: Task
    rooms: str
    trials: int

    @property
    def category(self) -> str:
        """What its rate counts towards: the group, or "atomic"."""
        return self.group or self.level


@dataclass(frozen=True)
class Trial:
    """One episode of a task: what `reset` takes, and what the policy is told."""

    seed: int
    scene: Scene
    task: Task
    instruction: str

    def options(self) -> dict[str, Any]:
        """For the environment's `reset(seed=trial.seed, options=…)`."""
        return {"scene": self.scene, "task": self.task}


@cache
def instruct_tasks(path: Path = TASKS_FILE) -> tuple[InstructTask, ...]:
    """All tasks of a benchmark file, in its order.

    Raises:
        ValueError: for a file or an entry that can't be used, naming the entry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} can't be read as tasks: {error}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("tasks"), list):
        raise ValueError(f"{path} must hold `levels` and a list `tasks`")
    tasks: dict[str, InstructTask] = {}
    for number, entry in enumerate(content["tasks"]):
        name = entry.get("name", f"task {number}") if isinstance(entry, Mapping) else f"task {number}"
        try:
            task = read_task(entry, content.get("levels") or {})
        except (KeyError, TypeError, ValueError) as error:
            lacking = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}, {name}: {lacking}") from error
        if tasks.setdefault(task.name, task) is not task:
            raise ValueError(f"{path}: two tasks are named {name}; rename one")
    return tuple(tasks.values())


def instruct_task(name: str) -> InstructTask:
    """The task of a name.

    Raises:
        ValueError: an unknown name; the message gives the nearest one and all groups.
    """
    known = {task.name: task for task in instruct_tasks()}
    if name not in known:
        raise ValueError(
            f"unknown task {name!r}, the nearest is {nearest(name, list(known))!r}; all are: {', '.join(known)}"
        )
    return known[name]


def read_task(entry: Any, levels: Mapping[str, Any]) -> InstructTask:
    """A checked entry of the file.

    Raises:
        KeyError: it lacks a field.
        ValueError: a value that can't be used.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"a task must be a mapping with {', '.join(FIELDS)}, got {entry!r}")
    if unknown := sorted(set(entry) - set(FIELDS)):
        raise ValueError(f"unknown fields {', '.join(unknown)}; a task has {', '.join(FIELDS)}")
    level = choice("level", entry["level"], Level)
    defaults, stands = levels.get(level, {}), entry["scene"]
    group = None if level is Level.ATOMIC else choice("category", entry["category"], Group)
    if group is not None and group.level is not level:
        raise ValueError(f"{group} is a category of {group.level}, not of {level}")
    task = InstructTask(
        name=str(entry["name"]),
        level=level,
        group=group,
        instruction=str(entry["instruction"]),
        things=tuple(kinded(title, ITEMS) for title in stands.get("things", ())),
        receptacles=tuple(kinded(title, RECEPTACLES) for title in stands.get("receptacles", ())),
        drawer=choice("drawer", stands.get("drawer"), OPENINGS),
        distractors=whole("distractors", stands.get("distractors", 0), 0),
        task=Task(
            choice("skill", entry["task"]["skill"], Skill), entry["task"]["target"], entry["task"].get("destination")
        ),
        rooms=choice("rooms", defaults.get("rooms", "test"), SPLITS),
        trials=whole("trials", entry.get("trials", defaults.get("trials")), 1),
    )
    check_task(task)
    return task


def check_task(task: InstructTask) -> None:
    """Refuse what can't be done in the scene, or isn't new to a policy trained on the train split (ValueError)."""
    if len(task.instruction.split()) > MAX_WORDS:
        raise ValueError(f"the instruction {task.instruction!r} has more than {MAX_WORDS} words")
    standing = bare_scene(task)
    titles = [*standing.titles(), *([DRAWER] if task.drawer else [])]
    handled = [title for title in (task.task.target, task.task.destination) if title is not None]
    if absent := [title for title in handled if title not in titles]:
        raise ValueError(f"the task handles {', '.join(absent)}, but in the scene there are {', '.join(titles)}")
    items = [standing.titles()[title].item if title != DRAWER else DRAWER for title in handled]
    if task.level is not Level.ATOMIC and len(items) > 1 and combination_split(task.task.skill, *items) != "test":
        raise ValueError(f"{task.task.instruction()!r} is a combination that training episodes have; take another one")
    if (task.group is Group.NOVEL_OBJECTS) is not handles_unseen(standing, task.task):
        raise ValueError("novel_objects must handle an unseen item, and other categories none")


def trials(task: InstructTask, number: int | None = None) -> list[Trial]:
    """The task's episodes, the same every time.

    Args:
        number: of them; as many as the file says by default. The first ones are the same for any number.

    Raises:
        ValueError: if no scene was found in which the instruction means the task alone, saying what could be meant.
    """
    return [trial(task, index) for index in range(task.trials if number is None else number)]


def trial(task: InstructTask, index: int) -> Trial:
    """The episode of an index, from 0."""
    seed = (crc32(task.name.encode()) + index) % 2**31
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng((seed, attempt))
        try:
            things = with_distractors(rng, task)
            scene = arrange(rng, task.rooms, things, task.receptacles, OPENINGS[task.drawer], task.task)
        except CrowdedTableError:
            continue
        if is_meant(task, scene):
            return Trial(seed, scene, task.task, task.instruction)
    able = ", ".join(groups_for(bare_scene(task), task.task, "test")) or "none"
    raise ValueError(
        f"{task.name}: in {ATTEMPTS} scenes {task.instruction!r} never meant {task.task.instruction()!r} and nothing "
        f"else; use a test template of its category (with these things, {able} have some), or other things"
    )


def is_meant(task: InstructTask, scene: Scene) -> bool:
    """Whether the instruction means the task, and nothing else, in a scene."""
    if task.group is None:
        return task.instruction == task.task.instruction()
    return task.instruction in expressions(task.group, scene, task.task, "test")


def with_distractors(rng: np.random.Generator, task: InstructTask) -> list[Kinded]:
    """The things of a scene, in any order of the further ones; the drawer's scenes are as crowded as others."""
    things, names = list(task.things), list(ITEMS)
    while len(things) < len(task.things) + task.distractors:
        item = ITEMS[names[rng.integers(len(names))]]
        other = (item.name, str(rng.choice(item.colours)))
        if other not in things:
            things.append(other)
    return things


def bare_scene(task: InstructTask) -> Scene:
    """What always stands there, without places."""
    things, receptacles = (tuple(Placed(*one, (0.0, 0.0)) for one in some) for some in (task.things, task.receptacles))
    return Scene(things, receptacles, OPENINGS[task.drawer])


def choice(field: str, value: Any, choices: Any) -> Any:
    if value not in list(choices):
        raise ValueError(f"unknown {field} {value!r}; choose from {', '.join(map(str, choices))}")
    return choices(value) if isinstance(choices, type) else value


def whole(field: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{field} must be a whole number from {least} on, got {value!r}")
    return value
