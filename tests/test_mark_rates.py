"""Claims about rates from marks."""

import pytest

from instructvla.training.annotation.mark_rates import (
    ErrorType,
    Mark,
    agreement_lines,
    errors_table,
    pooled,
    rates_table,
    success_rate,
)


def marks(*scores: float, entry: str = "sample") -> list[Mark]:
    return [Mark(number, entry, score) for number, score in enumerate(scores)]


def test_the_success_rate_is_the_mean_with_wilsons_interval():
    assert success_rate([1, 1, 0.5, 0.5]) == "75.0 % [30.1–95.4]"
    assert success_rate([1] * 100) == "100.0 % [96.3–100.0]"


def test_rates_are_told_of_samples_and_kinds_beside_the_papers():
    table = rates_table([*marks(1, 0.5, 0), *marks(1, 1, entry="cr/0")])
    assert "| whole samples | 3 | 50.0 %" in table and "| rewritten commands | 2 | 100.0 %" in table
    assert "| paper, with instruction | 100 | 95.4 % | – | – |" in table
    assert "captions" not in table


def test_errors_are_shares_of_the_marks_below_one():
    given = [
        Mark(0, "sample", 0, ErrorType.IGNORED_CONTEXT),
        Mark(1, "sample", 0.5, ErrorType.AMBIGUOUS),
        Mark(2, "sample", 0.5),
        Mark(3, "sample", 0, ErrorType.IGNORED_CONTEXT),
        *marks(1, 1),
    ]
    table = errors_table(given)
    assert "| Ignore Vision Context | 2 | 50.0 %" in table and "| 32.5 % |" in table
    assert "| Reverse Temporal Order | 0 | 0.0 %" in table
    assert "| not told | 1 | 25.0 %" in table


def test_several_markers_are_pooled_by_entry():
    first, second = marks(1, 0), [Mark(1, "sample", 0.5, ErrorType.OTHER), Mark(2, "sample", 1)]
    assert pooled([first, second]) == [
        Mark(0, "sample", 1.0),
        Mark(1, "sample", 0.25, ErrorType.OTHER),
        Mark(2, "sample", 1.0),
    ]


def test_agreement_is_told_with_cohens_kappa():
    first, second = marks(1, 1, 0, 0), marks(1, 0, 0, 0)
    (line,) = agreement_lines({"Ada": first, "Alan": second})
    assert line.startswith("Ada and Alan: the same mark on 75.0 %") and line.endswith("of 4; Cohen's kappa 0.50")
    (line,) = agreement_lines({"Ada": first, "Alan": marks(1, entry="qa/0")})
    assert line == "Ada and Alan have marked nothing in common"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"episode": 1, "entry": "sample", "score": 0.7}, "a score is 0.7, but must be one of 0, 0.5, 1"),
        ({"episode": 1, "entry": "sample", "score": True}, "a score is True"),
        ({"episode": 1, "entry": "poem/0", "score": 1}, "'poem/0' of episode 1, which names no entry"),
        ({"episode": 1, "entry": "qa/0", "score": 0, "error": "Boredom"}, "an error is 'Boredom'"),
    ],
)
def test_marks_that_can_not_be_are_refused(record, message):
    with pytest.raises(ValueError, match=message):
        Mark.of_record(record)
    assert Mark.of_record(Mark(1, "qa/0", 0.5, ErrorType.OTHER).record()).error is ErrorType.OTHER
