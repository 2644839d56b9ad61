"""Claims about whether a command is about the instruction's things."""

import pytest

from instructvla.training.annotation.command_grounding import (
    count_actions,
    meaning,
    only_takes,
    other_goal,
    other_object,
    promised,
    undoes,
)


def role(text: str, name: str) -> list[str]:
    return [mention.noun for mention in meaning(text).of_role(name)]


def test_prepositions_tell_the_roles():
    text = "take the small spoon out of the basket and put it on top of the tray with the tongs"
    assert role(text, "objects") == ["spoon"]
    assert role(text, "sources") == ["basket"]
    assert role(text, "goals") == ["tray"]
    assert role(text, "instruments") == ["tongs"]


def test_where_a_thing_is_taken_is_not_where_it_goes():
    assert role("pick up the apple next to the bowl", "goals") == []
    assert role("put the apple to the left of the bowl", "goals") == ["bowl"]


def test_what_the_robot_promises_is_found_behind_what_it_says_first():
    answer = "Sure! The drawer is in the way, so I'll close the drawer."
    assert promised(answer) == "close the drawer"
    assert promised("Of course!") is None


@pytest.mark.parametrize(
    ("text", "is_placing", "count"),
    [
        ("put the spoon on the plate", True, 1),
        ("pick up the spoon and put it on the plate", True, 1),
        ("pick up the spoon and put it on the plate", False, 2),
        ("pick up the spoon, then put it on the plate", True, 2),
        ("open the drawer and take the red and the blue block", True, 2),
    ],
)
def test_actions_are_counted(text, is_placing, count):
    assert count_actions(text, is_placing) == count


def test_an_instruction_that_only_takes_places_nothing():
    assert only_takes(meaning("pick up the spoon")) and not only_takes(meaning("pick the spoon and put it in the sink"))


@pytest.mark.parametrize(
    ("command", "instruction", "wrong"),
    [
        ("put the fork on the plate", "put the spoon on the plate", "fork"),
        ("put the plate on the spoon", "put the spoon on the plate", "plate"),
        ("move the cloth across the table", "wipe the table with the cloth", None),
        ("use the sponge to wipe the table", "wipe the table with the sponge", None),
        ("put the granny smith in the dish", "put the apple in the bowl", None),
    ],
)
def test_another_thing_that_is_acted_on_is_found(command, instruction, wrong):
    found = other_object(meaning(command), meaning(instruction), is_reworded=False)
    assert (found and found.noun) == wrong


@pytest.mark.parametrize(
    ("command", "instruction", "wrong"),
    [
        ("put the apple on the plate", "put the apple in the bowl", "plate"),
        ("put the apple in the dish", "put the apple in the bowl", None),
        ("put the apple in the bowl", "take the apple out of the bowl", "bowl"),
        ("take the apple out of the bowl", "put the apple in the bowl", "bowl"),
        ("take the can from the top drawer", "take the can from the bottom drawer", "drawer"),
        ("take the apple from the table", "take the apple from the bowl", None),
    ],
)
def test_another_place_is_found(command, instruction, wrong):
    found = other_goal(meaning(command), meaning(instruction), is_reworded=False)
    assert (found and found.noun) == wrong


def test_a_reworded_command_may_name_a_shape_and_other_things_besides():
    told = meaning("move the can near the sponge")
    assert other_goal(meaning("set the drink beside the yellow block"), told, is_reworded=True) is None
    assert other_goal(meaning("set the drink beside the yellow block"), told, is_reworded=False)
    two = meaning("bring the can and the apple near the sponge")
    assert other_object(two, told, is_reworded=True) is None
    assert other_object(two, told, is_reworded=False).noun == "apple"


@pytest.mark.parametrize(
    ("command", "instruction", "verb"),
    [
        ("open the drawer", "close the drawer", "open"),
        ("push the open drawer shut", "close the drawer", None),
        ("do not leave the drawer open", "close the drawer", None),
        ("switch on the lamp", "turn off the lamp", "switch on"),
    ],
)
def test_an_action_that_undoes_the_instruction_is_found(command, instruction, verb):
    assert undoes(command, instruction) == verb
