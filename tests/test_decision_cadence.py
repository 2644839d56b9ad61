"""When the VLM runs and speaks: the paper's ratio, words once or again, noise by number."""

import pytest

from instructvla.evaluation.decision_cadence import Cadence, noise_seed


def modes(cadence: Cadence, number: int) -> list[tuple]:
    return [(mode.think, mode.reuse_latent) for mode in map(cadence.mode, range(number))]


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [
        (Cadence(), [(False, False)] * 4),
        (Cadence(think=True), [(True, False), *[(None, False)] * 3]),
        (Cadence(ratio=2), [(False, False), (False, True)] * 2),
        (Cadence(think=True, ratio=2), [(True, False), (None, True), (None, False), (None, True)]),
        (Cadence(think=True, rethink=2), [(True, False), (None, False)] * 2),
        (Cadence(think=True, ratio=2, rethink=1), [(True, False), (None, True)] * 2),
    ],
)
def test_modes_follow_the_ratio_and_the_words(cadence, expected):
    assert modes(cadence, 4) == expected


def test_what_uses_nothing_of_earlier_decisions_is_fresh():
    assert [Cadence(think=True, ratio=2).mode(number).is_fresh for number in range(3)] == [True, False, False]
    assert [Cadence(ratio=2).mode(number).is_fresh for number in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, "ratio must be at least 1, got 0"),
        ({"think": True, "rethink": 0}, "rethink must be at least 1, got 0"),
        ({"rethink": 2}, "rethink needs a policy that thinks"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Cadence(**options)


def test_each_decision_has_noise_of_its_own():
    seeds = {noise_seed(episode, number) for episode in range(5) for number in range(5)}
    assert len(seeds) == 25 and noise_seed(3, 4) == noise_seed(3, 4)
