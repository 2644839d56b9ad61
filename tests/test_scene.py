"""Scenes and tasks as data: how things are named, and how a task is said plainly."""

import pytest

from instructvla.evaluation.tabletop.scene import Placed, Scene, Skill, Task, item_of

SCENE = Scene(
    things=(Placed("apple", "red", (0.5, 0.0)), Placed("block", "green", (0.6, 0.1))),
    receptacles=(Placed("bowl", "white", (0.5, -0.2)),),
)


def test_only_what_comes_in_several_colours_is_named_with_its_colour():
    assert list(SCENE.titles()) == ["apple", "green block", "white bowl"]


def test_titles_lead_to_what_they_name():
    assert SCENE.titles()["green block"] is SCENE.things[1]
    assert item_of(SCENE.titles()["white bowl"]).name == "bowl"


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (Task(Skill.PICK_UP, "apple"), "pick up the apple"),
        (Task(Skill.PUT_IN, "apple", "white bowl"), "put the apple in the white bowl"),
        (Task(Skill.PUT_ON, "apple", "blue plate"), "put the apple on the blue plate"),
        (Task(Skill.MOVE_NEAR, "apple", "green block"), "move the apple near the green block"),
        (Task(Skill.OPEN, "drawer"), "open the drawer"),
        (Task(Skill.CLOSE, "drawer"), "close the drawer"),
    ],
)
def test_a_task_is_said_plainly(task, text):
    assert task.instruction() == text
