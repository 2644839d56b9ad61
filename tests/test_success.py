"""When tasks count as done."""

from dataclasses import replace

import pytest

from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.success import check_task, succeeded
from instructvla.evaluation.tabletop.world_state import ObjectState, WorldState
from tests.breakfast_scene import CLOSED, breakfast

APPLE, CAN = ObjectState(0.5, 0.1, 0.03), ObjectState(0.6, -0.2, 0.05)
BOWL = ObjectState(0.4, -0.1, 0.024)
START = WorldState({"apple": APPLE, "cola can": CAN, "white bowl": BOWL}, (0.4, 0, 0.2, 0, 0, 0), 1.0, drawer=0.5)


def with_apple(gripper=1.0, **changes):
    return replace(START, gripper=gripper, objects={**START.objects, "apple": replace(APPLE, **changes)})


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({"z": 0.11, "held": True}, True),
        ({"z": 0.11, "held": False}, False),
        ({"z": 0.08, "held": True}, False),
    ],
)
def test_picked_up_is_held_high(changes, done):
    assert succeeded(Task(Skill.PICK_UP, "apple"), START, with_apple(**changes)) is done


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({"support": "white bowl"}, True),
        ({"support": "table"}, False),
        ({"support": "white bowl", "still": False}, False),
        ({"support": "white bowl", "held": True}, False),
        ({"support": "white bowl", "gripper": 0.5}, False),
    ],
)
def test_put_in_is_let_go_and_at_rest_there(changes, done):
    assert succeeded(Task(Skill.PUT_IN, "apple", "white bowl"), START, with_apple(**changes)) is done


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({"x": 0.6, "y": -0.1}, True),
        ({"x": 0.6, "y": 0.0}, False),
        ({"x": 0.6, "y": -0.1, "support": "white bowl"}, False),
        ({"x": 0.6, "y": -0.1, "held": True}, False),
    ],
)
def test_moved_near_is_let_go_on_the_table_beside_it(changes, done):
    assert succeeded(Task(Skill.MOVE_NEAR, "apple", "cola can"), START, with_apple(**changes)) is done


@pytest.mark.parametrize(
    ("skill", "opening", "done"),
    [(Skill.OPEN, 0.9, True), (Skill.OPEN, 0.7, False), (Skill.CLOSE, 0.05, True), (Skill.CLOSE, 0.2, False)],
)
def test_the_drawer_s_opening_decides(skill, opening, done):
    assert succeeded(Task(skill, "drawer"), START, replace(START, drawer=opening)) is done


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(Skill.PICK_UP, "pear"), "can't pick up the 'pear' here; it can: apple, water bottle, red block, spoon"),
        (Task(Skill.PUT_IN, "apple", "basket"), "put in can't have the destination 'basket' here; drawer can"),
        (Task(Skill.OPEN, "apple"), "can't open the 'apple' here; it can: drawer"),
        (Task(Skill.PICK_UP, "drawer"), "can't pick up the 'drawer'"),
        (Task(Skill.PUT_IN, "apple"), "put in needs a destination; here it can be: drawer"),
        (Task(Skill.PICK_UP, "apple", "drawer"), "'drawer' here; nothing can"),
        (Task(Skill.PUT_IN, "apple", "spoon"), "'spoon' here; drawer can"),
        (Task(Skill.MOVE_NEAR, "apple", "apple"), "'apple' here; water bottle, red block, spoon can"),
    ],
)
def test_impossible_tasks_are_refused(task, message):
    with pytest.raises(ValueError, match=message):
        check_task(task, breakfast(CLOSED))


def test_drawer_tasks_need_a_cabinet():
    with pytest.raises(ValueError, match="it can: nothing"):
        check_task(Task(Skill.OPEN, "drawer"), breakfast())
    check_task(Task(Skill.OPEN, "drawer"), breakfast(CLOSED))
