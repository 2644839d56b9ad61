"""Claims about whether two runs differ."""

from math import isclose

import pytest

from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.paired_comparison import compare, mcnemar_p


def run(*verdicts: bool | None, seed: int = 1, groups=("easy",)) -> dict[tuple[str, int], Outcome]:
    outcomes = [Outcome("task", i, seed, "do it", verdict, 1, groups=groups) for i, verdict in enumerate(verdicts)]
    return {outcome.key: outcome for outcome in outcomes}


def test_p_is_that_of_the_binomial_test_on_discordant_pairs():
    assert mcnemar_p(0, 0) == 1 and mcnemar_p(3, 3) == 1
    assert isclose(mcnemar_p(0, 5), 2 / 32) and isclose(mcnemar_p(0, 6), 2 / 64) and mcnemar_p(6, 0) == mcnemar_p(0, 6)
    assert isclose(mcnemar_p(2, 9), 2 * (1 + 11 + 55) / 2**11)


def test_many_one_sided_differences_are_no_noise():
    found = compare(run(*[False] * 8, True), run(*[True] * 8, True))
    assert found["all"].first == Rate(1, 9) and found["all"].second == Rate(9, 9)
    assert (found["all"].only_first, found["all"].only_second) == (0, 8)
    assert found["easy"].verdict == "B is better" and found == {"easy": found["all"], "all": found["all"]}


def test_differences_that_cancel_are_noise_whatever_the_rates():
    found = compare(run(True, False, True, True), run(False, True, True, True))["all"]
    assert found.first == found.second == Rate(3, 4) and found.verdict == "noise" and found.p_value == 1


def test_only_trials_that_both_have_a_verdict_on_count():
    found = compare(run(True, None, True), run(True, True, False, True))["all"]
    assert found.first == Rate(2, 2) and found.second == Rate(1, 2)
    with pytest.raises(ValueError, match="no trial in common"):
        compare(run(None), run(True))


def test_other_seeds_are_not_compared():
    with pytest.raises(ValueError, match="trial 0 of task is not the same in both runs: seed 1 .* seed 2"):
        compare(run(True), run(True, seed=2))
