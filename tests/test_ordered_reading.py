"""Claims about reading ahead: whatever the number of workers, episodes come in order and bad ones in their place."""

import pytest

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.ordered_reading import read_in_order
from tests.memory_episodes import bridge_episodes


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_and_errors_come_in_order(workers):
    found = list(read_in_order(bridge_episodes(9, bad=(4,)), range(1, 9), workers))
    assert [number for number, _ in found] == list(range(1, 9))
    assert [number for number, episode in found if isinstance(episode, BadEpisodeError)] == [4]
    assert [e.file_path for n, e in found if n != 4] == [f"/robot/{n}/out.npy" for n in range(1, 9) if n != 4]


def test_it_reads_no_more_than_it_is_asked_for():
    reading = read_in_order(bridge_episodes(10**9), range(10**9), 0)
    assert next(reading)[0] == 0
