from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from instructvla.evaluation.tabletop.annotations import annotate, labelled_annotation
from instructvla.evaluation.tabletop.phrases import MAX_WORDS, Level, response
from instructvla.evaluation.tabletop.phrases import Group as Groups
from instructvla.training.annotation.categories import QUESTION_CATEGORIES, Category
from instructvla.training.data.episodes import Annotation
from tests.tabletop_scenes import resting_state, sampled


def annotated(scene, task, split="train", seed=0):
    return labelled_annotation(scene, task, [resting_state(scene)], np.random.default_rng(seed), split)


def test_annotations_are_those_of_the_training_data():
    scene, task = next(sampled(1, "train"))
    given = annotate(scene, task, [resting_state(scene)], np.random.default_rng(0), "train")
    assert isinstance(given, Annotation)
    assert given.caption and given.questions and given.rewritten and given.contexts
    assert all(turn.answer == response(task) for turn in (*given.rewritten, *given.contexts))


def test_the_same_seed_gives_the_same_annotation():
    scene, task = next(sampled(1, "train"))
    assert annotated(scene, task) == annotated(scene, task)
    assert annotated(scene, task) != annotated(scene, task, seed=1)


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_turn_carries_its_category(split):
    categories = {level: {group.category for group in Groups if group.level is level} for level in Level}
    for scene, task in sampled(20, split):
        given = annotated(scene, task, split)
        assert {turn.category for turn in given.questions} <= set(QUESTION_CATEGORIES)
        assert {turn.category for turn in given.rewritten} <= categories[Level.AGGREGATION]
        assert {turn.category for turn in given.contexts} <= categories[Level.SITUATED]
        assert all(len(turn.question.split()) <= MAX_WORDS for turn in (*given.rewritten, *given.contexts))


def test_categories_are_balanced_over_many_episodes():
    shares = {"questions": Counter(), "rewritten": Counter(), "contexts": Counter()}
    for index, (scene, task) in enumerate(sampled(150, "train")):
        given = annotated(scene, task, seed=index)
        for column, counts in shares.items():
            turns = getattr(given, column)
            counts.update({category: 0 for category in Category})
            for turn in turns:
                counts[turn.category] += 1 / len(turns)  # a frame draws one of its turns
    for counts in shares.values():
        found = [count for count in counts.values() if count]
        assert max(found) < 3 * min(found)
    assert sum(count > 0 for counts in shares.values() for count in counts.values()) == len(Category)


def test_states_of_another_scene_and_unknown_splits_are_refused():
    scene, task = next(sampled(1, "train"))
    other = replace(scene, things=scene.things[:1])
    with pytest.raises(ValueError, match="states must be"):
        annotate(scene, task, [resting_state(other)], np.random.default_rng(0), "train")
    with pytest.raises(ValueError, match="unknown split"):
        annotate(scene, task, [resting_state(scene)], np.random.default_rng(0), "valid")
