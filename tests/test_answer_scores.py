"""Scores of short answers: what counts and what does not."""

import pytest

from instructvla.training.answer_scores import exact_match, word_f1


@pytest.mark.parametrize(
    "answer, reference, exact, f1",
    [
        ("A red cup.", "the red cup", 1.0, 1.0),
        ("red", "red cup", 0.0, 2 / 3),
        ("cup red", "red cup", 0.0, 1.0),
        ("red red", "red cup", 0.0, 0.5),
        ("blue", "red", 0.0, 0.0),
        ("", "red", 0.0, 0.0),
        ("!", "", 1.0, 1.0),
        ("A", "B", 0.0, 0.0),
        ("A", "a", 1.0, 1.0),
        ("24.", "24", 1.0, 1.0),
        ("GROẞ", "gross", 1.0, 1.0),
    ],
)
def test_case_punctuation_and_articles_do_not_count(answer, reference, exact, f1):
    assert exact_match(answer, reference) == exact
    assert word_f1(answer, reference) == pytest.approx(f1)
