"""Wilson's interval against published numbers."""

import pytest

from instructvla.evaluation.intervals import Rate, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_equals_the_published_one(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_interval_is_symmetric_in_success_and_failure():
    low, high = wilson_interval(7, 40)
    assert wilson_interval(33, 40) == pytest.approx((1 - high, 1 - low))


def test_higher_confidence_gives_a_wider_interval():
    narrow, wide = wilson_interval(7, 40, 0.90), wilson_interval(7, 40, 0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_no_trial_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 10), (11, 10), (0, -1)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes must be 0 to trials"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson_interval(1, 2, confidence)


def test_a_rate_shows_its_interval():
    assert str(Rate(150, 200)) == "75.0 % [68.6–80.5]"
    assert str(Rate(0, 0)) == "–" and Rate(0, 0).record()["rate"] is None
