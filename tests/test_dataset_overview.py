"""Claims about what a pass over all episodes tells."""

from dataclasses import replace

import numpy as np

from instructvla.training.data.dataset_overview import read_overview
from instructvla.training.data.dataset_statistics import compute_statistics
from tests.memory_episodes import bridge_episodes


def test_statistics_are_those_of_all_episodes_that_can_be_read():
    found = read_overview(bridge_episodes(12, bad=(3, 5)))
    expected = compute_statistics(bridge_episodes(12, bad=(3, 5)), skip_bad=True)["bridge_dataset"]
    assert found.statistics.summary()["action"] == expected["action"]
    assert list(found.unreadable) == [3, 5] and "record 3 is truncated" in str(found.unreadable[3])
    assert [problem.check for problem in found.problems] == []


class Odd:
    """Episodes of which one has another action size and all share an id."""

    def __init__(self, reader):
        self.reader, self.description = reader, reader.description

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        episode = replace(self.reader[index], file_path=None)
        return replace(episode, actions=np.zeros((4, 3), np.float32)) if index == 1 else episode


def test_an_episode_of_another_size_is_left_out_and_problems_of_the_whole_are_found():
    found = read_overview(Odd(bridge_episodes(4)))
    assert found.statistics.episodes == 3
    assert [(problem.check, problem.number) for problem in found.problems] == [("duplicate id", n) for n in (1, 2, 3)]
