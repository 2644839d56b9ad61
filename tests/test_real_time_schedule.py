"""Claims about real-time chunking as a schedule."""

import numpy as np
import pytest

from instructvla.evaluation.real_time_schedule import RealTimeChunks

HORIZON = 8


def chunk(number: int) -> np.ndarray:
    """Actions that tell their chunk and their place in it."""
    return np.stack([np.full(HORIZON, number), np.arange(HORIZON)], axis=1)


def walk(schedule: RealTimeChunks, steps: int, *delays: int) -> tuple[list[tuple[int, int]], list[dict]]:
    """Actions of each step and what was asked, when each chunk comes so many steps after it was asked for, the later
    ones as the last."""
    done, asked, due = [], [], None
    for step in range(steps):
        if due is None and schedule.needs_chunk():
            asked.append(dict(schedule.ask()))
            due = step + delays[min(len(asked), len(delays)) - 1]
        if due is not None and (step >= due or not schedule.has_action()):
            schedule.add(chunk(len(asked) - 1))
            due = None
        done.append(tuple(int(value) for value in schedule.action()))
    return done, asked


def test_the_last_chunk_goes_on_until_the_next_one_is_there_which_then_leaves_out_what_is_past():
    done, asked = walk(RealTimeChunks(every=4, delay=2), 10, 2)
    assert done == [(0, i) for i in range(6)] + [(1, 2), (1, 3), (1, 4), (1, 5)]
    assert asked[0] == {}
    np.testing.assert_array_equal(asked[1]["previous_actions"], chunk(0)[4:])
    assert asked[1]["delay"] == 2


def test_without_delay_it_is_open_loop_of_every_actions():
    done, _ = walk(RealTimeChunks(every=3), 9, 0)
    assert done == [(number, place) for number in range(3) for place in range(3)]


def test_the_expected_delay_is_the_largest_of_the_last_measured_ones():
    _, asked = walk(RealTimeChunks(every=3), 60, 0, 2, 1)
    delays = [one["delay"] for one in asked[1:]]
    assert delays[:12] == [0, *[2] * 10, 1] and set(delays[11:]) == {1}


def test_a_chunk_that_comes_after_the_last_action_is_waited_for():
    done, _ = walk(RealTimeChunks(every=6), 12, 5)
    assert done[:8] == [(0, i) for i in range(8)] and done[8] == (1, 2)


def test_an_episode_starts_without_the_last_one_s_actions():
    schedule = RealTimeChunks(every=3)
    walk(schedule, 4, 1)
    schedule.reset()
    assert schedule.needs_chunk() and not schedule.has_action() and schedule.ask() == {}


def test_numbers_out_of_range_and_chunks_that_nobody_asked_for_are_refused():
    with pytest.raises(ValueError, match="every ≥ 1 and delay ≥ 0, got 0"):
        RealTimeChunks(every=0)
    with pytest.raises(ValueError, match="With a delay of 5 steps a chunk can't be asked for every 4"):
        RealTimeChunks(every=4, delay=5)
    with pytest.raises(ValueError, match="No chunk was asked for"):
        RealTimeChunks(every=4).add(chunk(0))
    with pytest.raises(ValueError, match="There is no action left"):
        RealTimeChunks(every=4).action()
