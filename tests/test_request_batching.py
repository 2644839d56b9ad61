"""Claims about the queue in front of the model."""

import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager

import pytest

from instructvla.evaluation.policy_messages import PolicyError
from instructvla.evaluation.request_batching import RequestBatcher
from tests.stand_in_policy import wait_until

SOON = 10.0


class Work:
    """Doubles numbers; waits while the gate is clear; fails for negative ones."""

    def __init__(self):
        self.gate = threading.Event()
        self.batches = []

    def __call__(self, numbers):
        self.batches.append(numbers)
        assert self.gate.wait(SOON)
        if min(numbers) < 0:
            raise ValueError(f"{min(numbers)} is negative")
        return [2 * number for number in numbers]


@contextmanager
def batching(max_batch=4, max_wait_s=0.0, max_queue=8, expected=1):
    work = Work()
    batcher = RequestBatcher(work, max_batch, max_wait_s, max_queue, lambda: expected)
    try:
        yield work, batcher
    finally:
        work.gate.set()
        batcher.close(SOON)


def occupy(work, batcher):
    """The thread works on a first request until the gate opens."""
    first = batcher.submit(0, "a", SOON)
    wait_until(lambda: work.batches)
    return first


def test_requests_that_wait_and_agree_are_answered_together():
    with batching(max_batch=3) as (work, batcher):
        occupy(work, batcher)
        futures = [batcher.submit(number, "a", SOON) for number in (1, 2, 3, 4)]
        work.gate.set()
        answers = [future.result(SOON) for future in futures]
    assert [answer.result for answer in answers] == [2, 4, 6, 8]
    assert work.batches == [[0], [1, 2, 3], [4]] and [answer.batch for answer in answers] == [3, 3, 3, 1]
    assert all(answer.queue_s > 0 and answer.run_s > 0 for answer in answers)


def test_the_oldest_goes_first_and_options_are_not_mixed():
    with batching() as (work, batcher):
        occupy(work, batcher)
        futures = [batcher.submit(number, key, SOON) for number, key in ((1, "a"), (2, "b"), (3, "a"), (4, "b"))]
        work.gate.set()
        assert [future.result(SOON).result for future in futures] == [2, 4, 6, 8]
    assert work.batches == [[0], [1, 3], [2, 4]]


def test_a_request_waits_for_others_that_may_come():
    with batching(max_wait_s=SOON, expected=2) as (work, batcher):
        work.gate.set()
        first = batcher.submit(1, "a", SOON)
        second = batcher.submit(2, "a", SOON)
        assert (first.result(SOON).batch, second.result(SOON).batch) == (2, 2)


def test_a_lone_client_does_not_wait_for_others():
    with batching(max_wait_s=SOON, expected=1) as (work, batcher):
        work.gate.set()
        assert batcher.submit(1, "a", SOON).result(SOON / 2).result == 2


def test_a_full_queue_refuses_as_busy():
    with batching(max_queue=2) as (work, batcher):
        occupy(work, batcher)
        kept = [batcher.submit(number, "a", SOON) for number in (1, 2)]
        with pytest.raises(PolicyError, match="busy: 2 requests are waiting"):
            batcher.submit(3, "a", SOON)
        assert batcher.waiting == 2 and batcher.under_way == 3
        work.gate.set()
        assert [future.result(SOON).result for future in kept] == [2, 4]


def test_a_cancelled_request_makes_room_and_is_not_run():
    with batching(max_queue=1) as (work, batcher):
        occupy(work, batcher)
        gone = batcher.submit(1, "a", SOON)
        assert gone.cancel()
        kept = batcher.submit(2, "a", SOON)
        work.gate.set()
        assert kept.result(SOON).result == 4
    assert work.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        gone.result(0)


def test_a_request_whose_turn_comes_too_late_is_not_run():
    with batching() as (work, batcher):
        occupy(work, batcher)
        late, kept = batcher.submit(1, "a", 0.0), batcher.submit(2, "a", SOON)
        work.gate.set()
        assert kept.result(SOON).result == 4
        with pytest.raises(PolicyError, match="deadline"):
            late.result(SOON)
    assert work.batches == [[0], [2]]


def test_a_request_that_breaks_its_batch_fails_alone():
    with batching() as (work, batcher):
        first = occupy(work, batcher)
        futures = [batcher.submit(number, "a", SOON) for number in (1, -5, 3)]
        work.gate.set()
        assert (first.result(SOON).result, futures[0].result(SOON).result, futures[2].result(SOON).result) == (0, 2, 6)
        with pytest.raises(ValueError, match="-5 is negative"):
            futures[1].result(SOON)
        assert batcher.submit(7, "a", SOON).result(SOON).result == 14 and batcher.alive


def test_closing_refuses_what_waits_and_what_comes_and_ends_the_thread():
    with batching() as (work, batcher):
        running = occupy(work, batcher)
        waiting = batcher.submit(1, "a", SOON)
        assert batcher.running_s() > 0
        batcher.close(0.01)
        with pytest.raises(PolicyError, match="shutting down"):
            waiting.result(SOON)
        with pytest.raises(PolicyError, match="shutting down"):
            batcher.submit(2, "a", SOON)
        work.gate.set()
        assert running.result(SOON).result == 0
        wait_until(lambda: not batcher.alive)
        assert batcher.running_s() == 0
