"""Claims about what English texts name."""

import pytest

from instructvla.training.annotation.command_words import words
from instructvla.training.annotation.object_words import mentions, plurals, related


def named(text: str) -> list[str]:
    return [str(mention) for mention in mentions(words(text))]


def may_be(one: str, other: str) -> bool:
    (first,), (second,) = mentions(words(one)), mentions(words(other))
    assert first.may_be(second) == second.may_be(first)
    return first.may_be(second)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("put the small red cola can on the plate", ["small red cola can", "plate"]),
        ("two knives and three cherries on the shelves", ["knives", "cherries", "shelves"]),
        ("can you close the drawer?", ["drawer"]),
        ("I can see the can", ["can"]),
        ("the long orange thing beside the orange", ["orange"]),
        ("the doohickey", []),
    ],
)
def test_things_are_found_with_what_tells_which(text, found):
    assert named(text) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the mug", "the cup"),
        ("the fruit", "the green apple"),
        ("the dish", "the white bowl"),
        ("the fridge door", "the fridge"),
        ("the coke", "the coke can"),
        ("the can", "the soda"),
        ("the bottle", "the soap"),
        ("the toy", "the toy banana"),
        ("the tabletop", "the counter"),
    ],
)
def test_words_of_one_thing_may_mean_it(one, other):
    assert may_be(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the spoon", "the fork"),
        ("the apple", "the bottle"),
        ("the red block", "the blue block"),
        ("the top drawer", "the lowest drawer"),
        ("the cola can", "the lemonade can"),
        ("the toy car", "the toy train"),
        ("the bowl", "the plate"),
    ],
)
def test_words_of_different_things_may_not(one, other):
    assert not may_be(one, other)


def test_kinds_of_kinds_are_related_and_their_other_members_are_not():
    assert related("food", "lemon") and related("citrus", "lemon")
    assert not related("lemon", "lime") and not related("fruit", "carrot")


def test_plurals_hold_the_right_spelling():
    assert "knives" in plurals("knife") and "berries" in plurals("berry") and "boxes" in plurals("box")
