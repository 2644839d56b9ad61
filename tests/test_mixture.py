"""Claims about the stream of frames: what it holds, in what proportion, and that it resumes exactly."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.mixture import FrameSample, MixtureStream, frame_sample
from tests.made_episodes import MadeEpisodes

LENGTHS = [3, 9, 1, 6, 4, 12, 5]


def readers() -> dict[str, MadeEpisodes]:
    return {"bridge": MadeEpisodes("bridge", LENGTHS), "fractal": MadeEpisodes("fractal", [20, 2, 7])}


def stream(**options) -> MixtureStream:
    options = {"datasets": readers(), "horizon": 4, "shuffle_window": 8, "seed": 5} | options
    return MixtureStream(options.pop("datasets"), options.pop("weights", None), **options)


def name(sample: FrameSample) -> tuple:
    return (sample.epoch, sample.dataset, sample.episode_id, sample.frame_index)


def names(samples, count: int | None = None) -> list[tuple]:
    return [name(sample) for sample in islice(samples, count)]


def same(one: FrameSample, other: FrameSample) -> bool:
    arrays = all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("state", "actions", "action_mask"))
    return arrays and name(one) == name(other) and one.images == other.images


def test_a_sample_is_its_frame_and_the_actions_from_it_on():
    episode = MadeEpisodes("bridge", [5])[0]
    sample = frame_sample(episode, 3, horizon=4, epoch=2)
    assert name(sample) == (2, "bridge", "0", 3)
    assert sample.images == {"primary": episode.images["primary"][3]}
    assert sample.actions[:, 1].tolist() == [3, 4, 4, 4]
    assert sample.action_mask.tolist() == [True, True, False, False]
    assert sample.state.tolist() == episode.states[3].tolist() and sample.state.base is None
    assert (sample.instruction, sample.language_motion) == ("put the spoon on the towel", "move 3")


def test_what_is_missing_stays_missing():
    actions = np.zeros((1, 7), np.float32)
    sample = frame_sample(Episode("bridge", "0", {}, actions, None, [None], 5.0), 0, horizon=1)
    assert sample.state is sample.instruction is sample.language_motion is sample.annotation is None


@pytest.mark.parametrize("shuffle_window", [1, 8, 1000])
@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 1), (2, 3)])
def test_over_all_ranks_and_workers_every_frame_comes_once_an_epoch(shuffle_window, world_size, num_workers):
    shard = {"world_size": world_size, "num_workers": num_workers, "shuffle_window": shuffle_window, "epochs": 2}
    seen = Counter()
    for rank in range(world_size):
        for worker in range(num_workers):
            seen.update(names(stream(rank=rank, worker=worker, **shard)))
    assert set(seen.values()) == {1}
    assert len(seen) == 2 * (sum(LENGTHS) + 29)


def test_a_window_of_one_keeps_the_order_of_reading():
    samples = names(stream(datasets={"bridge": MadeEpisodes("bridge", LENGTHS)}, shuffle_window=1, epochs=1))
    steps = [step for _, _, _, step in samples]
    assert all(step in (0, previous + 1) for previous, step in zip(steps, steps[1:], strict=False))


def test_a_wider_window_mixes_episodes():
    samples = names(stream(datasets={"bridge": MadeEpisodes("bridge", [50] * 20)}, shuffle_window=300), 300)
    assert len({episode for _, _, episode, _ in samples[:30]}) > 5


def test_weights_are_proportions_of_frames():
    samples = stream(weights={"bridge": 3, "fractal": 1})
    counts = Counter(sample.dataset for sample in islice(samples, 20_000))
    assert counts["bridge"] / 20_000 == pytest.approx(0.75, abs=0.012)  # four standard deviations


def test_the_same_seed_gives_the_same_stream_and_another_gives_another():
    assert names(stream(), 200) == names(stream(), 200)
    assert names(stream(), 200) != names(stream(seed=6), 200)


def test_a_worker_s_stream_is_that_of_its_arguments():
    assert names(stream().for_worker(1, 3), 50) == names(stream(worker=1, num_workers=3), 50)


@pytest.mark.parametrize("epochs", [None, 1])
@pytest.mark.parametrize("consumed", [0, 1, 7, 40])
@pytest.mark.parametrize("worker", [0, 1])
def test_a_resumed_stream_is_the_uninterrupted_one(consumed, worker, epochs):
    options = {"worker": worker, "num_workers": 2, "weights": {"bridge": 2, "fractal": 1}, "epochs": epochs}
    uninterrupted = stream(**options)
    list(islice(uninterrupted, consumed))
    state = json.loads(json.dumps(uninterrupted.state_dict()))
    resumed = stream(**options)
    next(resumed, None)  # a stream that was used before is set to the state too
    resumed.load_state_dict(state)
    expected, got = (list(islice(samples, 150)) for samples in (uninterrupted, resumed))
    assert len(expected) == len(got)
    assert all(map(same, expected, got))


def test_the_state_outlives_several_blocks_of_draws():
    uninterrupted = stream(datasets={"bridge": MadeEpisodes("bridge", LENGTHS)})
    list(islice(uninterrupted, 5000))
    resumed = stream(datasets={"bridge": MadeEpisodes("bridge", LENGTHS)})
    resumed.load_state_dict(uninterrupted.state_dict())
    assert names(resumed, 100) == names(uninterrupted, 100)


def test_resuming_reads_only_the_episodes_of_the_window():
    consumed, datasets = stream(), readers()
    list(islice(consumed, 500))
    resumed = stream(datasets=datasets)
    resumed.load_state_dict(consumed.state_dict())
    assert sum(reader.reads for reader in datasets.values()) <= 8


def test_taking_the_state_changes_nothing():
    watched, alone = stream(), stream()
    got = []
    for _ in range(100):
        watched.state_dict()
        got += names(watched, 1)
    assert got == names(alone, 100)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 6}, "seed was 5, is 6"),
        ({"horizon": 8}, "horizon was 4, is 8"),
        ({"weights": {"bridge": 1, "fractal": 2}}, "weights was"),
        ({"shuffle_window": 9}, "shuffle_window was 8, is 9"),
        ({"rank": 1, "world_size": 2}, "rank was 0, is 1; world_size was 1, is 2"),
        ({"datasets": {"bridge": MadeEpisodes("bridge", [3])}}, "datasets was"),
    ],
)
def test_a_state_of_other_settings_or_data_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=f"the state is of another stream: .*{named}"):
        stream(**change).load_state_dict(stream().state_dict())


def test_a_state_of_data_that_changed_inside_is_refused():
    old, new = readers(), readers()
    old["bridge"].fingerprint, new["bridge"].fingerprint = "a1", "b2"
    with pytest.raises(ValueError, match=r"datasets was .*a1.* is .*b2"):
        stream(datasets=new).load_state_dict(stream(datasets=old).state_dict())


def test_a_state_of_another_version_is_refused():
    with pytest.raises(ValueError, match="version 0; this stream reads 1"):
        stream().load_state_dict(stream().state_dict() | {"version": 0})


def test_a_bad_episode_stops_the_stream():
    with pytest.raises(BadEpisodeError, match="bridge.tfrecord: episode 1"):
        list(stream(datasets={"bridge": MadeEpisodes("bridge", LENGTHS, bad=(1,))}, epochs=1))


def test_a_skipped_episode_is_noted_and_everything_else_comes():
    options = {"datasets": {"bridge": MadeEpisodes("bridge", LENGTHS, bad=(1, 4))}, "epochs": 1, "on_bad": "skip"}
    skipping = stream(**options)
    seen = names(skipping)
    assert len(seen) == len(set(seen)) == sum(LENGTHS) - LENGTHS[1] - LENGTHS[4]
    assert {dataset: sorted(bad) for dataset, bad in skipping.skipped.items()} == {"bridge": [1, 4]}
    resumed = stream(**options)
    resumed.load_state_dict(json.loads(json.dumps(skipping.state_dict())))
    assert resumed.skipped == skipping.skipped


def test_skipping_everything_is_an_error():
    with pytest.raises(ValueError, match="none of the 2 episodes of 'bridge' can be read"):
        next(stream(datasets={"bridge": MadeEpisodes("bridge", [3, 3], bad=(0, 1))}, on_bad="skip"))


def test_mixed_action_sizes_are_refused_with_both_episodes():
    mixed = {"bridge": MadeEpisodes("bridge", [30]), "g1": MadeEpisodes("g1", [30], action_dim=26)}
    with pytest.raises(ValueError, match=r"(g1/0 has actions of 26 .* bridge/0 of 7|bridge/0 .* of 7 .* g1/0 of 26)"):
        list(islice(stream(datasets=mixed), 40))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": {}}, "datasets is empty"),
        ({"datasets": {"bridge": MadeEpisodes("bridge", [])}}, "'bridge' has no episodes"),
        ({"weights": {"bridge": 1}}, "weights are of"),
        ({"weights": {"bridge": 1, "fractal": 0}}, "weight of 'fractal' is 0"),
        ({"weights": {"bridge": float("nan"), "fractal": 1}}, "weight of 'bridge' is nan"),
        ({"horizon": 0}, "horizon is 0"),
        ({"shuffle_window": 0}, "shuffle_window is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"rank": 2, "world_size": 2}, "rank is 2; with world_size 2 it is 0 to 1"),
        ({"worker": -1}, "worker is -1"),
        ({"on_bad": "ignore"}, "on_bad is 'ignore'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        stream(**options)
