"""Claims about what must not be in an entry."""

import pytest

from instructvla.training.annotation.banned_patterns import answer_inside, chained_actions, repeats, robot_mention


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("A robotic arm above a table.", "robotic"),
        ("A black arm above a table.", "black arm"),
        ("An end-effector holds a cup.", "end-effector"),
        ("A chair whose left arm is broken.", None),
        ("A person's arm rests on the table.", None),
        ("An armchair and an alarm clock.", None),
    ],
)
def test_the_robot_is_found_in_a_caption_and_other_arms_are_not(caption, word):
    assert robot_mention(caption) == word


def test_more_actions_than_the_instruction_has_are_chained():
    assert chained_actions("I will take the spoon and then put it on the plate.", "put the spoon on the plate")
    assert chained_actions("I will take the spoon and put it in the sink.", "pick up the spoon")
    assert not chained_actions("I will take the spoon and put it on the plate.", "put the spoon on the plate")
    assert not chained_actions("I'll open the box and take the pen.", "open the box and take the pen")
    assert not chained_actions("The drawer is open, then again empty.", "close the drawer")


def test_an_answer_is_found_inside_its_context():
    answer = "Sure, I will close the top drawer."
    assert answer_inside("Mind your head. Please close top drawer!", answer) == "close top drawer"
    assert answer_inside("Somebody may bump into that drawer.", answer) is None


def test_a_context_that_leaves_a_choice_may_name_the_answer():
    answer = "I will close the top drawer."
    assert answer_inside("First close the top drawer, then open the door. What comes first?", answer) is None
    assert answer_inside("Close the top drawer, not the bottom one.", answer) is None


def test_an_instruction_with_a_please_is_a_repetition():
    assert repeats("Could you please close the top drawer?", "close top drawer")
    assert not repeats("Shut the top drawer.", "close top drawer")
