"""The exam about pictures: the same each time, scored exactly, asked through the command."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop.question_answering import ALL, BLIND, answer_rates, app, blind_answers, exam
from instructvla.nano import untrained_nano
from instructvla.training.annotation.categories import QUESTION_CATEGORIES


@pytest.fixture(scope="module")
def questions():
    return list(exam(8, image_size=32))


def test_the_exam_is_the_same_each_time_and_has_every_category(questions):
    again = list(exam(8, image_size=32))
    assert [one.text for one in again] == [one.text for one in questions]
    assert all(np.array_equal(one.picture, other.picture) for one, other in zip(questions, again, strict=True))
    assert {one.fact.category for one in questions} == set(QUESTION_CATEGORIES)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split"):
        next(exam(1, "valid"))


def test_right_answers_are_counted_per_category(questions):
    right = [one.fact.answer.upper() for one in questions]
    assert all(rate.value == 1 for rate in answer_rates(questions, right).values())
    none = answer_rates(questions, ["?"] * len(questions))
    assert none[ALL].trials == len(questions) and none[ALL].successes == 0
    half = answer_rates(questions, [right[0], *["?"] * (len(questions) - 1)])
    assert half[ALL].successes == half[questions[0].fact.category].successes == 1


def test_the_floor_knows_the_commonest_answers_but_no_picture(questions):
    answers = blind_answers(questions)
    by_kind = {}
    for one, answer in zip(questions, answers, strict=True):
        assert by_kind.setdefault(one.fact.kind, answer) == answer
    assert 0 < answer_rates(questions, answers)[ALL].value < 1


def test_the_command_prints_a_row_per_checkpoint(tmp_path):
    untrained_nano().save_pretrained(tmp_path / "a")
    out = tmp_path / "answers.json"
    given = [f"first={tmp_path / 'a'}", str(tmp_path / "a"), "--pictures", "1", "--output", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert f"| {BLIND} |" in result.stdout and "| first |" in result.stdout and f"| {tmp_path / 'a'} |" in result.stdout
    written = json.loads(out.read_text())
    assert written["answers"]["first"] == written["answers"][str(tmp_path / "a")]
    assert written["rates"]["first"][ALL]["trials"] == len(written["answers"]["first"])


@pytest.mark.parametrize(
    ("given", "message"), [(["nowhere/at/all"], "there is no checkpoint"), (["a", "--output", "x.md"], "must end in")]
)
def test_bad_input_is_told(given, message):
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2 and message in result.stderr
