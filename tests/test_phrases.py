import re
from collections import Counter

import numpy as np
import pytest

from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.meanings import SPLITS, phrase_file
from instructvla.evaluation.tabletop.phrases import (
    MAX_WORDS,
    Group,
    Level,
    drawn_instructions,
    expressions,
    groups_for,
    instructions,
    response,
    sayings,
)
from instructvla.evaluation.tabletop.scene import Scene, Skill, Task
from instructvla.evaluation.tabletop.translations import LANGUAGES
from instructvla.training.annotation.categories import Category
from tests.tabletop_scenes import in_a_row, sampled


def templates_of(group: Group, split: str) -> list[str]:
    content = phrase_file(group)
    parts = [content[language][split] for language in LANGUAGES] if group is Group.MULTILINGUAL else [content[split]]
    return [template for part in parts for texts in part.values() for template in texts]


@pytest.mark.parametrize("group", Group)
def test_templates_of_train_and_test_are_disjoint(group):
    train, test = (set(templates_of(group, split)) for split in SPLITS)
    assert not train & test


def test_no_test_template_is_a_train_template_of_another_group():
    train, test = ({template for group in Group for template in templates_of(group, split)} for split in SPLITS)
    assert not train & test


@pytest.mark.parametrize("group", Group)
def test_there_are_enough_templates(group):
    assert len(set(templates_of(group, "train"))) >= 8
    assert len(set(templates_of(group, "test"))) >= 4


def test_no_instruction_of_test_is_one_of_train_in_the_same_scene():
    for scene, task in sampled(60, "test"):
        train, test = ({text for group in Group for text in expressions(group, scene, task, s)} for s in SPLITS)
        assert not train & test


@pytest.mark.parametrize("split", SPLITS)
def test_every_template_can_be_said_somewhere(split):
    unsaid = {(group, template) for group in Group for template in templates_of(group, split)}
    for scene, task in sampled(250, split, seed=1):
        for group in Group:
            unsaid -= {(group, template) for template, texts in sayings(group, scene, task, split) if texts}
    assert not unsaid


@pytest.mark.parametrize("split", SPLITS)
def test_instructions_are_short_and_whole(split):
    for scene, task in sampled(60, split):
        for group in Group:
            for text in expressions(group, scene, task, split):
                assert 1 < len(text.split()) <= MAX_WORDS
                assert not set(text) & set("{}[]") and "None" not in text


def other_tasks(scene: Scene, task: Task) -> list[Task]:
    """Tasks that differ in the target, the destination, or opening for closing."""
    if task.target == DRAWER:
        return []  # a scene's drawer allows one of the two
    titles = [scene.title(thing) for thing in scene.things if scene.title(thing) != task.target]
    return [Task(task.skill, title, task.destination) for title in titles if title != task.destination]


@pytest.mark.parametrize("split", SPLITS)
def test_no_instruction_means_another_thing_of_the_scene(split):
    for scene, task in sampled(60, split):
        for group in Group:
            said = set(expressions(group, scene, task, split))
            for other in other_tasks(scene, task):
                assert not said & set(expressions(group, scene, other, split))


@pytest.mark.parametrize("split", SPLITS)
def test_what_a_negation_names_is_not_the_target(split):
    pattern = (
        r"(?:not|leave|do not (?:touch|take|pick up)|any but) the ([a-zA-Z ]+?)(?:,| put| move| give| take| open|$)"
    )
    for scene, task in sampled(80, split):
        for text in expressions(Group.NEGATION, scene, task, split):
            assert task.target == DRAWER or task.target not in re.findall(pattern, text)


def test_no_soda_leaves_the_water():
    scene = in_a_row("water bottle", "cola can", "lemonade can", "apple")
    task = Task(Skill.PICK_UP, "water bottle")
    assert "I am thirsty, but no soda please" in expressions("negation", scene, task, "train")
    assert response(task) == "I will pick up the water bottle."


def test_the_same_words_mean_what_the_drawer_allows():
    text = "I want the apple in the drawer. what first?"
    closed, opened = (in_a_row("apple", "fork", drawer=opening) for opening in (0.0, 1.0))
    assert text in expressions("subtasks", closed, Task(Skill.OPEN, DRAWER), "train")
    assert text in expressions("subtasks", opened, Task(Skill.PUT_IN, "apple", DRAWER), "train")
    assert text not in expressions("subtasks", opened, Task(Skill.CLOSE, DRAWER), "train")


def test_situated_instructions_without_negation_or_steps_do_not_name_the_target():
    for scene, task in sampled(80, "train"):
        for group in (Group.IMPLICIT_GOALS, Group.TOOL_USE, Group.ATTRIBUTES):
            if task.target != DRAWER and " " in task.target:
                assert not any(task.target in text for text in expressions(group, scene, task, "train"))


def test_novel_objects_of_test_are_unseen_ones():
    seen, unseen = Task(Skill.PICK_UP, "apple"), Task(Skill.PICK_UP, "plum")
    scene = in_a_row("apple", "plum")
    assert Group.NOVEL_OBJECTS not in groups_for(scene, seen, "test")
    assert Group.NOVEL_OBJECTS in groups_for(scene, unseen, "test")


def test_each_group_has_a_category_of_the_paper_and_a_level():
    assert Counter(group.level for group in Group) == {Level.AGGREGATION: 5, Level.SITUATED: 4}
    assert {group.category for group in Group} == set(list(Category)[:7])


def test_the_same_seed_draws_the_same_instructions():
    scene, task = next(sampled(1, "train"))
    first, again = (
        [
            instructions(group, scene, task, "train", np.random.default_rng(5))
            for group in groups_for(scene, task, "train")
        ]
        for _ in range(2)
    )
    assert first == again


def test_several_instructions_are_of_different_templates():
    scene = in_a_row("apple", "fork")
    drawn = drawn_instructions("new_verbs", scene, Task(Skill.PICK_UP, "apple"), "train", np.random.default_rng(0), 5)
    assert len(set(drawn)) == 5


def test_a_group_that_cannot_say_the_task_tells_which_can():
    scene, rng = in_a_row("apple", "fork"), np.random.default_rng(0)
    with pytest.raises(ValueError, match="tool_use can't say 'pick up the apple' in this scene; new_verbs, .* can"):
        instructions("tool_use", scene, Task(Skill.PICK_UP, "apple"), "train", rng)
    with pytest.raises(ValueError, match="unknown group 'verbs'; choose from new_verbs"):
        instructions("verbs", scene, Task(Skill.PICK_UP, "apple"), "train", rng)
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        instructions("new_verbs", scene, Task(Skill.PICK_UP, "apple"), "valid", rng)
