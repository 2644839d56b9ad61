"""Claims about streams behind data workers: nothing is lost or doubled, and they resume exactly despite prefetching."""

import json
from collections import Counter
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.mixture import FrameSample, MixtureStream
from instructvla.training.data.stream_loader import StreamLoader, as_iterable_dataset
from tests.made_episodes import MadeEpisodes

LENGTHS = [3, 9, 1, 6, 4, 12, 5]


def mixture(**options) -> MixtureStream:
    return MixtureStream({"bridge": MadeEpisodes("bridge", LENGTHS)}, horizon=4, shuffle_window=8, **options)


def loader(num_workers: int, **options) -> StreamLoader:
    return StreamLoader(mixture(**options).for_worker, num_workers=num_workers)


def name(sample: FrameSample) -> tuple:
    return (sample.epoch, sample.episode_id, sample.frame_index)


def names(samples, count: int | None = None) -> list[tuple]:
    return [name(sample) for sample in islice(samples, count)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_over_all_workers_every_frame_comes_once(num_workers):
    seen = Counter(names(loader(num_workers, epochs=1)))
    assert len(seen) == sum(LENGTHS) and set(seen.values()) == {1}


def test_items_come_from_the_workers_in_turn():
    got = names(loader(2), 20)
    streams = [mixture().for_worker(worker, 2) for worker in range(2)]
    assert got == [name(next(streams[step % 2])) for step in range(20)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("consumed", [0, 1, 31])
def test_a_resumed_loader_goes_on_after_the_last_item_handed_out(num_workers, consumed):
    uninterrupted = names(loader(num_workers), consumed + 40)
    interrupted = loader(num_workers)
    assert names(interrupted, consumed) == uninterrupted[:consumed]
    resumed = loader(num_workers)
    resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    assert names(resumed, 40) == uninterrupted[consumed:]


def test_a_resumed_loader_ends_where_the_uninterrupted_one_ends():
    uninterrupted = names(loader(2, epochs=1))
    for consumed in (0, len(uninterrupted) - 3, len(uninterrupted)):
        interrupted, resumed = loader(2, epochs=1), loader(2, epochs=1)
        names(interrupted, consumed)
        resumed.load_state_dict(interrupted.state_dict())
        assert names(resumed) == uninterrupted[consumed:]


def test_iterating_again_goes_on():
    again = loader(0)
    assert names(again, 10) + names(again, 10) == names(loader(0), 20)


def test_a_state_of_other_workers_is_refused():
    with pytest.raises(ValueError, match="the state is of 2 data workers, this loader has 1; give num_workers=2"):
        loader(0).load_state_dict(loader(2).state_dict())


def test_a_state_of_another_stream_is_refused_by_the_iteration():
    interrupted, reseeded = loader(0), loader(0, seed=1)
    names(interrupted, 1)
    reseeded.load_state_dict(interrupted.state_dict())
    with pytest.raises(ValueError, match="the state is of another stream: seed was 0, is 1"):
        names(reseeded, 1)


@pytest.mark.parametrize("options", [{"num_workers": -1}, {"prefetch": 0}])
def test_wrong_arguments_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        StreamLoader(mixture().for_worker, **options)


def as_names(examples, count: int | None = None) -> list[tuple]:
    return [(example["epoch"], example["episode_id"], example["frame_index"]) for example in islice(examples, count)]


def test_the_datasets_form_holds_the_same_samples():
    assert as_names(as_iterable_dataset(mixture(epochs=1))) == names(mixture(epochs=1))


def test_the_datasets_form_is_dealt_to_a_data_loader_s_workers():
    dataset = as_iterable_dataset(mixture(epochs=1), num_workers=2)
    seen = Counter(as_names(DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=dict)))
    assert len(seen) == sum(LENGTHS) and set(seen.values()) == {1}


def test_the_datasets_form_resumes_exactly():
    uninterrupted = names(mixture(), 60)
    interrupted, resumed = as_iterable_dataset(mixture()), as_iterable_dataset(mixture())
    assert as_names(interrupted, 25) == uninterrupted[:25]
    resumed.load_state_dict(json.loads(json.dumps(interrupted.state_dict())))
    assert as_names(resumed, 35) == uninterrupted[25:]


class Stumbling:
    """A stream whose third item can't be read."""

    def __init__(self):
        self.place = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.place += 1
        if self.place == 3:
            raise BadEpisodeError("file.parquet: row group 2 can't be read")
        return self.place

    def state_dict(self):
        return {"place": self.place}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_data_that_a_worker_meets_is_raised_as_itself(num_workers):
    items = iter(StreamLoader(lambda worker, num: Stumbling(), num_workers=num_workers))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(BadEpisodeError, match="^file.parquet: row group 2 can't be read$"):
        next(items)


def test_iterating_leaves_the_global_random_numbers_as_they_are():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(islice(loader(0), 2))
    assert torch.equal(torch.get_rng_state(), before)
