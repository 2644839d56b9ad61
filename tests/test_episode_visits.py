"""Claims about which shard reads which episode."""

from collections import Counter

import pytest

from instructvla.training.data.episode_visits import EpisodeVisits
from instructvla.training.data.episodes import BadEpisodeError
from tests.made_episodes import MadeEpisodes


def shards(num_shards: int, reader: MadeEpisodes, **options) -> list[EpisodeVisits]:
    places = [{"shard": shard, "num_shards": num_shards} for shard in range(num_shards)]
    return [EpisodeVisits("bridge", reader, **({"seed": 3} | place | options)) for place in places]


@pytest.mark.parametrize("num_shards", [1, 2, 5, 13])
def test_over_all_shards_each_epoch_holds_every_episode_once(num_shards):
    seen = Counter()
    for visits in shards(num_shards, MadeEpisodes("bridge", [1] * 5), epochs=3):
        visit = 0
        while not visits.is_over(visit):
            seen[visits.epoch(visit), visits.index(visit)] += 1
            visit += 1
    assert seen == {(epoch, index): 1 for epoch in range(3) for index in range(5)}


def test_no_shard_runs_dry_even_with_fewer_episodes_than_shards():
    for visits in shards(8, MadeEpisodes("bridge", [4])):
        assert not visits.is_over(10**9)
        assert len(visits.read(100)) == 4


def test_the_order_depends_on_the_epoch_the_seed_and_the_dataset():
    reader = MadeEpisodes("bridge", [1] * 30)
    (visits,) = shards(1, reader)
    first, second = ([visits.index(visit) for visit in range(start, start + 30)] for start in (0, 30))
    (reseeded,) = shards(1, reader, seed=4)
    renamed = EpisodeVisits("fractal", reader, seed=3, shard=0, num_shards=1)
    others = [[other.index(visit) for visit in range(30)] for other in (reseeded, renamed)]
    assert sorted(first) == list(range(30))
    assert len({tuple(order) for order in (first, second, *others)}) == 4


def test_an_episode_that_cannot_be_read_is_noted_and_not_tried_again():
    reader = MadeEpisodes("bridge", [1, 1], bad=(1,))
    (visits,) = shards(1, reader)
    visit = next(visit for visit in range(2) if visits.index(visit) == 1)
    for _ in range(2):
        with pytest.raises(BadEpisodeError, match="bridge.tfrecord: episode 1 is truncated"):
            visits.read(visit)
    assert visits.unreadable == {1: "bridge.tfrecord: episode 1 is truncated; copy the file again"}
    assert reader.reads == 1


def test_a_dataset_of_which_nothing_can_be_read_is_an_error_of_the_whole():
    (visits,) = shards(1, MadeEpisodes("bridge", [1, 1], bad=(0, 1)))
    with pytest.raises(BadEpisodeError):
        visits.read(0)
    with pytest.raises(ValueError, match="none of the 2 episodes of 'bridge' can be read; the last: bridge.tfrecord"):
        visits.read(1)
