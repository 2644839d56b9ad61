"""Claims about chunks of future actions."""

import numpy as np
import pytest

from instructvla.training.data.action_chunks import action_chunk

ACTIONS = np.arange(10, dtype=np.float32).reshape(5, 2)


def test_a_chunk_inside_the_episode_is_its_next_actions():
    chunk, mask = action_chunk(ACTIONS, 1, 3)
    np.testing.assert_array_equal(chunk, ACTIONS[1:4])
    assert mask.tolist() == [True, True, True]


@pytest.mark.parametrize("start", range(5))
def test_beyond_the_end_the_last_action_is_repeated_and_masked(start):
    chunk, mask = action_chunk(ACTIONS, start, 16)
    recorded = 5 - start
    np.testing.assert_array_equal(chunk[:recorded], ACTIONS[start:])
    np.testing.assert_array_equal(chunk[recorded:], np.tile(ACTIONS[-1], (16 - recorded, 1)))
    assert mask.dtype == bool and mask.tolist() == [True] * recorded + [False] * (16 - recorded)
    assert chunk.dtype == np.float32 and np.isfinite(chunk).all()


def test_a_chunk_is_a_copy():
    actions = ACTIONS.copy()
    chunk, _ = action_chunk(actions, 0, 2)
    chunk += 1
    np.testing.assert_array_equal(actions, ACTIONS)


@pytest.mark.parametrize("start", [-1, 5])
def test_a_start_outside_the_episode_is_refused(start):
    with pytest.raises(ValueError, match=f"start is {start}; an episode of 5 steps has 0 to 4"):
        action_chunk(ACTIONS, start, 2)


def test_an_empty_chunk_is_refused():
    with pytest.raises(ValueError, match="horizon is 0"):
        action_chunk(ACTIONS, 0, 0)
