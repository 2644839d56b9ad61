"""Instructions for a task in a scene, as in the paper's Instruct benchmark (sections 4.1 and 4.2, appendix C.1).

The templates are data in `phrases/*.yaml`, other ones for training than for testing. A template is used only where its
words mean the task and nothing else in the scene; what a word means is in `words.yaml` and `meanings.yaml`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.fillings import (
    Fillings,
    attribute_fillings,
    goal_fillings,
    job_fillings,
    negation_fillings,
    plain,
    subtask_fillings,
    task_slots,
)
from instructvla.evaluation.tabletop.meanings import check_split, phrase_file
from instructvla.evaluation.tabletop.references import Filling, slots
from instructvla.evaluation.tabletop.scene import Scene, Skill, Task, item_of
from instructvla.evaluation.tabletop.translations import LANGUAGES, translated_slots
from instructvla.training.annotation.categories import Category

MAX_WORDS = 14  # of an instruction: the nano language model learns from nothing


class Level(StrEnum):
    """Levels of the benchmark (section 4.2)."""

    ATOMIC = "atomic"
    AGGREGATION = "instruction_aggregation"
    SITUATED = "situated_reasoning"


class Group(StrEnum):
    """The benchmark's groups of instructions; the value is the templates' file."""

    NEW_VERBS = "new_verbs"
    MULTILINGUAL = "multilingual"
    ATTRIBUTES = "attributes"
    REPHRASING = "rephrasing"
    NOVEL_OBJECTS = "novel_objects"
    IMPLICIT_GOALS = "implicit_goals"
    NEGATION = "negation"
    SUBTASKS = "subtasks"
    TOOL_USE = "tool_use"

    @property
    def level(self) -> Level:
        return _WAYS[self].level

    @property
    def category(self) -> Category:
        """Its name in appendix C.1."""
        return _WAYS[self].category


@dataclass(frozen=True)
class Way:
    """How a group says things."""

    level: Level
    category: Category
    fillings: Fillings = plain


_WAYS = {
    Group.NEW_VERBS: Way(Level.AGGREGATION, Category.NOVEL_ACTION_REFERENCING),
    Group.MULTILINGUAL: Way(Level.AGGREGATION, Category.DIRECT_INSTRUCTION),
    Group.ATTRIBUTES: Way(Level.AGGREGATION, Category.COMPLEX_OBJECT_REFERENCING, attribute_fillings),
    Group.REPHRASING: Way(Level.AGGREGATION, Category.DIRECT_INSTRUCTION),
    Group.NOVEL_OBJECTS: Way(Level.AGGREGATION, Category.DIRECT_INSTRUCTION),
    Group.IMPLICIT_GOALS: Way(Level.SITUATED, Category.SITUATED_TASK_IDENTIFICATION, goal_fillings),
    Group.NEGATION: Way(Level.SITUATED, Category.NEGATIVE_TASK_SPECIFICATION, negation_fillings),
    Group.SUBTASKS: Way(Level.SITUATED, Category.SUBTASK_IDENTIFICATION, subtask_fillings),
    Group.TOOL_USE: Way(Level.SITUATED, Category.TOOL_USE_UNDERSTANDING, job_fillings),
}


def response(task: Task) -> str:
    """What the robot answers before it acts: the atomic action, in one form."""
    return f"I will {task.instruction()}."


def instructions(group: Group | str, scene: Scene, task: Task, split: str, rng: np.random.Generator) -> tuple[str, str]:
    """One of `drawn_instructions`, and the answer to it."""
    return drawn_instructions(group, scene, task, split, rng, 1)[0], response(task)


def drawn_instructions(
    group: Group | str, scene: Scene, task: Task, split: str, rng: np.random.Generator, number: int
) -> list[str]:
    """Instructions that mean the task alone, of other templates each as long as there are any that can say it.

    Args:
        split: "train" or "test"; their templates have nothing in common.
        number: how many.

    Raises:
        ValueError: an unknown group or split, or a group that can't say this task here (see `groups_for`).
    """
    group = checked_group(group)
    choices = [texts for _, texts in sayings(group, scene, task, split) if texts]
    if not choices:
        able = ", ".join(groups_for(scene, task, split)) or "none"
        raise ValueError(f"{group} can't say {task.instruction()!r} in this scene; {able} can")
    order = rng.permutation(len(choices))
    return [str(rng.choice(choices[order[index % len(order)]])) for index in range(number)]


def groups_for(scene: Scene, task: Task, split: str) -> list[Group]:
    """The groups that can say a task in a scene."""
    return [group for group in Group if any(texts for _, texts in sayings(group, scene, task, split))]


def expressions(group: Group | str, scene: Scene, task: Task, split: str) -> list[str]:
    """Every instruction of a group that means the task alone in this scene."""
    found = (text for _, texts in sayings(checked_group(group), scene, task, split) for text in texts)
    return list(dict.fromkeys(found))


def sayings(group: Group, scene: Scene, task: Task, split: str) -> Iterator[tuple[str, list[str]]]:
    """(template, its texts) of a group for a task."""
    check_split(split)
    if group is Group.NOVEL_OBJECTS and split == "test" and not handles_unseen(scene, task):
        return
    if group is Group.MULTILINGUAL:
        for language in LANGUAGES:
            filling = translated_slots(task, language)
            for template in templates(group, task, split, language):
                yield template, filled(template, filling, [{}])
        return
    fillings = list(_WAYS[group].fillings(scene, task, split))
    for template in templates(group, task, split):
        yield template, filled(template, task_slots(task), fillings)


def templates(group: Group, task: Task, split: str, language: str | None = None) -> list[str]:
    """The templates of a split for a task's skill, at their most special first."""
    sections: Mapping[str, Sequence[str]] = (
        phrase_file(group)[language][split] if language else phrase_file(group)[split]
    )
    return [template for section in sections_of(task) for template in sections.get(section, ())]


def sections_of(task: Task) -> list[str]:
    """Names of a template file's sections that are for a task."""
    if task.skill not in (Skill.PUT_IN, Skill.PUT_ON):
        return [task.skill, "any"]
    return [*(["put in drawer"] if task.destination == DRAWER else []), "put", "any"]


def filled(template: str, task_filling: Filling, fillings: Sequence[Filling]) -> list[str]:
    """The template's texts with each filling that has exactly what it lacks, unless too long."""
    lacking = slots(template) - set(task_filling)
    texts = [template.format(**task_filling, **filling) for filling in fillings if set(filling) == lacking]
    return [text for text in texts if len(text.split()) <= MAX_WORDS]


def handles_unseen(scene: Scene, task: Task) -> bool:
    """Whether a task handles something that no training episode handles."""
    titles = scene.titles()
    handled = (titles[title] for title in (task.target, task.destination) if title in titles)
    return any(not item_of(placed).seen for placed in handled)


def checked_group(group: Group | str) -> Group:
    if group not in list(Group):
        raise ValueError(f"unknown group {group!r}; choose from {', '.join(Group)}")
    return Group(group)
