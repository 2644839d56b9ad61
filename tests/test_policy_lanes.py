"""Claims about the two queues in front of a model."""

from contextlib import contextmanager

import numpy as np
import pytest

from instructvla.evaluation.load_measurement import example_observation
from instructvla.evaluation.policy_lanes import PolicyLanes
from instructvla.evaluation.policy_messages import PolicyError
from instructvla.evaluation.policy_observations import PolicyRequest
from instructvla.evaluation.served_policy import PolicyCall, ServedPolicy
from instructvla.nano import untrained_nano
from tests.stand_in_policy import StandInPolicy, wait_until

SOON = 10.0


@contextmanager
def lanes(max_wait_s=0.0, max_queue=4, clients=2):
    policy = StandInPolicy()
    both = PolicyLanes(policy, 4, max_wait_s, max_queue, lambda: clients)
    try:
        yield policy, both
    finally:
        policy.gate.set()
        policy.thoughts.set()
        both.close(SOON)


def call(seed: int, think: bool = False) -> PolicyCall:
    return PolicyCall(PolicyRequest({}, "go", think=think, seed=seed))


def test_who_acts_does_not_wait_for_the_words_of_another_and_speaking_does_not_wait_for_actions():
    for held, free in ((True, False), (False, True)):
        with lanes() as (policy, both):
            (policy.thoughts if held else policy.gate).clear()
            slow = both.submit(call(1, think=held), SOON)
            wait_until(lambda: policy.batches)
            assert both.submit(call(2, think=free), SOON).result(SOON).result.actions[0, 0] == 2
            assert not slow.done() and both.running_s() > 0


def test_nobody_waits_for_a_client_that_is_being_answered_in_the_other_queue():
    with lanes(max_wait_s=SOON) as (policy, both):
        policy.thoughts.clear()
        both.submit(call(1, think=True), SOON)
        assert both.submit(call(2), SOON).result(SOON / 2).batch == 1


def test_a_full_queue_of_thoughts_refuses_no_action():
    with lanes(max_queue=1) as (policy, both):
        policy.thoughts.clear()
        both.submit(call(1, think=True), SOON)
        wait_until(lambda: policy.batches)
        both.submit(call(2, think=True), SOON)
        with pytest.raises(PolicyError, match="busy"):
            both.submit(call(3, think=True), SOON)
        assert both.waiting == 1 and both.alive
        assert both.submit(call(4), SOON).result(SOON).result.response == "words"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_compiled_model_that_thinks_and_acts_at_once_answers_as_one_that_does_not(device):
    """On CUDA most shapes are new, so that one thread captures graphs while the other works."""
    policy = ServedPolicy(untrained_nano().to(device), "nano", max_new_tokens=4)
    calls = [
        PolicyCall(policy.reader.read(example_observation(policy.metadata, seed) | {"think": seed % 2 == 0}))
        for seed in range(4)
    ]
    expected = [policy.act([one])[0] for one in calls]
    policy.model.compile_for_inference(rows=(1,), modes=("act",), instruction_tokens=8, progress=False)
    both = PolicyLanes(policy, 1, 0.0, 4, lambda: 4)
    found = [future.result(600).result for future in [both.submit(one, 600.0) for one in calls]]
    both.close(SOON)
    for one, alone in zip(found, expected, strict=True):
        assert one.response == alone.response
        np.testing.assert_allclose(one.actions, alone.actions, atol=1e-4)


def test_closing_ends_both_threads():
    with lanes() as (_, both):
        both.close(SOON)
        assert not any(lane.alive for lane in both._lanes)
        for think in (True, False):
            with pytest.raises(PolicyError, match="shutting down"):
                both.submit(call(1, think), SOON)
