"""VLA-IT annotations of simulated episodes (paper section 4.1), written from the simulator's state and thus true."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instructvla.evaluation.tabletop.meanings import check_split
from instructvla.evaluation.tabletop.phrases import (
    Group,
    Level,
    drawn_instructions,
    groups_for,
    response,
)
from instructvla.evaluation.tabletop.questions import LabelledTurn, caption, draw_questions, facts
from instructvla.evaluation.tabletop.scene import Scene, Task
from instructvla.evaluation.tabletop.view import Point, View
from instructvla.evaluation.tabletop.world_state import WorldState
from instructvla.training.annotation.categories import QUESTION_CATEGORIES
from instructvla.training.data.episodes import Annotation, Turn

QUESTIONS_EACH = 2  # of each category that can be asked
# How often each group of instructions is taken where it can say the task, in the inverse of how often it can, so that
# the categories of appendix C.1 are balanced over many episodes.
REPEATS = {
    Group.NEW_VERBS: 3,
    Group.MULTILINGUAL: 1,
    Group.ATTRIBUTES: 5,
    Group.REPHRASING: 1,
    Group.NOVEL_OBJECTS: 1,
    Group.IMPLICIT_GOALS: 2,
    Group.NEGATION: 2,
    Group.SUBTASKS: 2,
    Group.TOOL_USE: 14,
}


@dataclass(frozen=True)
class LabelledAnnotation:
    """An episode's annotation, each turn with its category of appendix C.1.

    Args:
        caption: of the scene.
        questions: QA.
        rewritten: command rewriting.
        contexts: context creation.
    """

    caption: str
    questions: tuple[LabelledTurn, ...]
    rewritten: tuple[LabelledTurn, ...]
    contexts: tuple[LabelledTurn, ...]

    def annotation(self) -> Annotation:
        """Without the labels, as episodes carry it."""
        return Annotation(
            self.caption, unlabelled(self.questions), unlabelled(self.rewritten), unlabelled(self.contexts)
        )


def annotate(
    scene: Scene,
    task: Task,
    states: Sequence[WorldState],
    rng: np.random.Generator,
    split: str,
    points: Mapping[str, Point] | None = None,
) -> Annotation:
    """The annotation of an episode; see `labelled_annotation`."""
    return labelled_annotation(scene, task, states, rng, split, points).annotation()


def labelled_annotation(
    scene: Scene,
    task: Task,
    states: Sequence[WorldState],
    rng: np.random.Generator,
    split: str,
    points: Mapping[str, Point] | None = None,
) -> LabelledAnnotation:
    """Caption, questions, rewritten commands and created contexts of an episode.

    Any frame of the episode may be shown with any of them, so all are true at every frame.

    Args:
        states: of every frame.
        split: whose templates are used, "train" or "test".
        points: title → (u, v) in the front picture at the first frame, each 0 to 1; with them, places are asked too.

    Raises:
        ValueError: an unknown split, or states of another scene.
    """
    check_split(split)
    view = View.of_states(scene, states, points)
    found = facts(view, split)
    questions = []
    for category in QUESTION_CATEGORIES:
        fitting = [fact for fact in found if fact.category is category]
        drawn = draw_questions(fitting, split, QUESTIONS_EACH, rng)
        questions += [LabelledTurn(category, question, answer) for question, answer in drawn]
    said = {group: labelled(group, scene, task, split, rng) for group in groups_for(scene, task, split)}
    return LabelledAnnotation(
        caption=caption(view),
        questions=tuple(questions),
        rewritten=tuple(turn for group in said if group.level is Level.AGGREGATION for turn in said[group]),
        contexts=tuple(turn for group in said if group.level is Level.SITUATED for turn in said[group]),
    )


def labelled(group: Group, scene: Scene, task: Task, split: str, rng: np.random.Generator) -> list[LabelledTurn]:
    """The group's share of an episode's instructions."""
    drawn = drawn_instructions(group, scene, task, split, rng, REPEATS[group])
    return [LabelledTurn(group.category, text, response(task)) for text in drawn]


def unlabelled(turns: Sequence[LabelledTurn]) -> tuple[Turn, ...]:
    return tuple(Turn(turn.question, turn.answer) for turn in turns)
