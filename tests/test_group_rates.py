"""Claims about rates by group."""

from instructvla.evaluation.group_rates import group_rates
from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Outcome


def outcome(success: bool | None, *groups: str) -> Outcome:
    return Outcome("task", 0, 0, "…", success, 1, groups=groups)


def test_a_trial_counts_towards_all_its_groups_and_once_towards_all():
    outcomes = [outcome(True, "level", "kind"), outcome(False, "level"), outcome(True, "other")]
    expected = {"level": Rate(1, 2), "kind": Rate(1, 1), "other": Rate(1, 1), "all": Rate(2, 3)}
    assert group_rates(outcomes) == expected
    assert list(group_rates(outcomes, ["other", "never"])) == ["other", "level", "kind", "all"]


def test_trials_without_a_verdict_do_not_count():
    assert group_rates([outcome(None, "level"), outcome(True, "level")]) == {"level": Rate(1, 1), "all": Rate(1, 1)}
