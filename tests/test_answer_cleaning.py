"""Texts before they are compared: the authors' rules, with their faults."""

import pytest

from instructvla.evaluation.metrics.answer_cleaning import LONGEST, cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The Red  cup, on a table. ", "red cup, on table"),
        ("There are 2 cups and 13 forks!", "there are two cups and thirteen forks"),
        ("It's to the rigth of tehre", "it's to right of there"),
        ("mat2 moves backwards", "mat moves backward"),
        ("a TV at 5 o'  clock", "TV at five o'clock"),
        ("Let me see: none", "left me see: zero"),
        ("one\ntwo", "onetwo"),
        ("a the cup", "cup"),
        ("21 and 23", "21 and twenty-three"),
        ("", ""),
    ],
)
def test_rules_are_those_of_the_authors_evaluation(text, expected):
    assert cleaned(text) == expected


def test_what_follows_the_longest_text_does_not_count():
    assert cleaned("x" * LONGEST + " cup") == "x" * LONGEST
