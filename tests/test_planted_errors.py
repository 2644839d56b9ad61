import json
from collections import Counter

import numpy as np
import pytest

from instructvla.evaluation.tabletop.planted_errors import (
    KEYS,
    SPOILERS,
    broken,
    handled_title,
    spoilt,
)
from instructvla.training.annotation.answer_format import UnusableAnswerError, parse_answer
from instructvla.training.annotation.entry_checks import Reason, checked

INSTRUCTION = "put the red block in the white bowl"
ANSWER = {
    "caption": "a red block, a sponge and a white bowl.",
    "question_answering": [
        {"question": "how many bowls are there?", "answer": "one bowl."},
        {"question": "what is the sponge for?", "answer": "for cleaning."},
    ],
    "command_rewriting": [
        {"question": "drop the red cube into the pale bowl", "answer": f"I will {INSTRUCTION}."},
        {"question": "the red block belongs in the white bowl", "answer": f"I will {INSTRUCTION}."},
    ],
    "context_creation": [{"question": "I am tidying up. What goes in there?", "answer": f"I will {INSTRUCTION}."}],
}


def many(noise: float = 0.5, number: int = 60):
    return [spoilt(ANSWER, INSTRUCTION, noise, np.random.default_rng(seed)) for seed in range(number)]


def test_without_noise_the_answer_stays_as_it_is():
    assert spoilt(ANSWER, INSTRUCTION, 0, np.random.default_rng(0)) == (ANSWER, [])


def test_what_was_planted_is_what_changed():
    for answer, planted in many():
        changed = {(one.kind, one.number) for one in planted}
        assert len(changed) == len(planted)
        for kind, key in KEYS.items():
            for number, (before, after) in enumerate(zip(ANSWER[key], answer[key], strict=True)):
                assert (before != after) == ((kind, number) in changed)
        assert (answer["caption"] != ANSWER["caption"]) == (("caption", 0) in changed)


def test_every_kind_of_error_is_planted_and_about_as_many_as_asked_for():
    counts = Counter(one.reason for _, planted in many(number=200) for one in planted)
    assert set(counts) == set(map(str, SPOILERS))
    assert counts.total() == pytest.approx(0.5 * 6 * 200, rel=0.15)


def test_a_near_copy_is_one_of_an_entry_that_was_left_alone():
    for _, planted in many():
        for one in planted:
            before = (one.kind, one.number - 1)
            assert one.reason != Reason.DUPLICATE or before not in {other[:2] for other in planted}


def test_the_checks_find_no_fault_with_the_true_answer():
    assert checked(parse_answer(json.dumps(ANSWER)), INSTRUCTION).rejections == []


def test_a_broken_answer_can_not_be_used():
    with pytest.raises(UnusableAnswerError):
        parse_answer(broken(json.dumps(ANSWER)))


@pytest.mark.parametrize(
    ("instruction", "title"),
    [(INSTRUCTION, "red block"), ("open the drawer", None), ("pick up the cola can", "cola can")],
)
def test_the_first_thing_that_an_instruction_names_is_what_it_handles(instruction, title):
    assert handled_title(instruction) == title
