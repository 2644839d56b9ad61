"""The open-loop probe: fixed steps, errors by hand, the same numbers on any number of ranks, clear refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from instructvla import InstructVLAConfig, InstructVLAForConditionalGeneration
from instructvla.nano import NANO_STATISTICS, nano_processor, untrained_nano
from instructvla.training.data.dataset_statistics import compute_statistics
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.readers import open_episodes
from instructvla.training.open_loop import OpenLoopProbe, OpenLoopSums, distinct
from tests.reaching_episodes import NAMES, ReachingEpisodes
from tests.robot_frames import robot_frame

SHARED = Path(__file__).parents[2] / "shared" / "data"
BRIDGE = SHARED / "bridge_rlds_debug" / "bridge_dataset" / "1.0.0"
STATISTICS = {"reaching": NANO_STATISTICS["untrained"], "other": NANO_STATISTICS["untrained"]}


class Changed:
    """A reader whose episodes are changed by a function of (number, episode)."""

    def __init__(self, reader, change):
        self.reader, self.change = reader, change

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        return self.change(index, self.reader[index])


class Echo(torch.nn.Module):
    """A model that answers with its noise, as any model must that takes its chunk from the probe alone."""

    def __init__(self, horizon=16):
        super().__init__()
        self.config = InstructVLAConfig.nano(horizon=horizon)
        self.device, self.calls = torch.device("cpu"), []

    def generate_action(self, images, text, state=None, unnorm_key=None, think=None, noise=None):
        self.calls.append({"texts": text, "state": state, "unnorm_key": unnorm_key, "think": think})
        return type("Output", (), {"actions": 0.01 * noise})


@pytest.fixture(scope="module")
def model():
    model = untrained_nano()
    model.processor = nano_processor(statistics=STATISTICS, control_rate_hz=None)
    return model


def make_probe(processor, reader=None, **fields):
    fields = {"horizon": 16, "episodes": 3, "chunks_per_episode": 2} | fields
    return OpenLoopProbe(ReachingEpisodes(5) if reader is None else reader, processor, **fields)


def names_of(probe):
    return [frame.name for frame in probe.chunks]


# Which steps


def test_steps_depend_on_the_seed_alone_and_the_first_ones_are_of_different_episodes(model):
    first, again, other = (make_probe(model.processor, seed=seed) for seed in (0, 0, 1))
    assert names_of(first) == names_of(again) != names_of(other)
    assert len(set(names_of(first))) == 6
    assert len({frame.episode_id for frame in first.chunks[:3]}) == 3
    assert torch.equal(first.noise(4), again.noise(4))
    assert not torch.equal(first.noise(4), first.noise(3))


def test_only_the_models_cameras_are_kept_and_still_encoded(model):
    reader = Changed(
        ReachingEpisodes(2), lambda _, episode: replace(episode, images=dict(episode.images) | {"wrist": [b""] * 8})
    )
    for frame in make_probe(model.processor, reader).chunks:
        assert list(frame.images) == ["primary"]
        assert isinstance(frame.images["primary"], bytes)


def test_small_datasets_give_all_their_episodes_and_steps(model):
    assert len(make_probe(model.processor, ReachingEpisodes(2), episodes=9, chunks_per_episode=99).chunks) == 16


def test_steps_and_episodes_without_an_instruction_are_passed_over(model):
    def unlabelled(index, episode):
        return replace(episode, instructions=[None] * 6 + [" Pick UP "] * 2 if index == 1 else [""] * 8)

    probe = make_probe(model.processor, Changed(ReachingEpisodes(4), unlabelled))
    assert {(frame.episode_id, frame.instruction) for frame in probe.chunks} == {("1", "pick up")}
    assert sorted(frame.frame_index for frame in probe.chunks) == [6, 7]


# The error


def test_errors_of_a_chunk_are_those_by_hand():
    frame = robot_frame(actions=np.zeros((4, 3), np.float32), action_mask=np.array([True, True, False, False]))
    frame.actions[:, 2] = [1.0, 0.4, 0.0, 0.0]
    predicted = np.array([[0.1, 1.0, 1.0], [0.3, 1.0, 1.0], [9, 9, 9], [9, 9, 9]])
    sums = OpenLoopSums.of_chunk(predicted, frame, span=np.array([2.0, 0.0, 0.5]), gripper_dims=[2])
    assert sums.metrics(["x", "still", "gripper"]) == pytest.approx(
        {
            "eval_action_error": 0.3,
            "eval_action_error/x": 0.1,  # mean of 0.1 and 0.3, of a range of 2
            "eval_action_error/gripper": 0.5,  # the second is recorded closed; how far q01 and q99 lie does not matter
            "eval_action_mae/x": 0.2,
            "eval_action_mae/still": 1.0,  # q01 = q99: no share
            "eval_action_mae/gripper": 0.3,
        }
    )


def test_recorded_actions_have_no_error(model):
    probe = make_probe(model.processor)
    chunks = [OpenLoopSums.of_chunk(frame.actions, frame, probe.span("reaching"), [6]) for frame in probe.chunks]
    sums = sum(chunks, start=OpenLoopSums.zeros(7))
    metrics = sums.metrics(NAMES)
    assert set(metrics.values()) == {0.0}
    assert {"eval_action_error", "eval_action_error/gripper", "eval_action_mae/roll"} <= metrics.keys()


def test_what_is_asked_is_the_training_prompt_without_thinking_of_one_dataset_at_a_time(model):
    def mixed(index, episode):
        return replace(episode, dataset=("reaching", "other")[index % 2], instructions=["Pick IT up"] * 8)

    echo = Echo()
    make_probe(model.processor, Changed(ReachingEpisodes(4), mixed), episodes=4).measure(echo, batch_size=3)
    assert {call["unnorm_key"] for call in echo.calls} == {"reaching", "other"}
    assert sum(len(call["texts"]) for call in echo.calls) == 8
    assert all(set(call["texts"]) == {"pick it up"} and call["think"] is False for call in echo.calls)


# Ranks and batches


def test_the_result_of_any_number_of_ranks_is_that_of_one(model):
    probe = make_probe(model.processor)
    whole = probe.measure(model, batch_size=2)
    for world_size in (2, 5):
        shares = [probe.measure(model, batch_size=2, rank=rank, world_size=world_size) for rank in range(world_size)]
        total = sum((share.sums.to_tensor() for share in shares), start=torch.zeros(4, 7))
        torch.testing.assert_close(total, whole.sums.to_tensor(), rtol=1e-12, atol=0)  # another order of a sum
        assert sorted(number for share in shares for number in share.predictions) == list(range(6))
        assert shares[0].predictions.keys() >= {0, 1}


def test_the_batch_size_changes_rounding_only(model):
    probe = make_probe(model.processor)
    one, six = (probe.measure(model, batch_size=size) for size in (1, 6))
    for number, chunk in one.predictions.items():  # the gripper is rounded to 0 or 1
        np.testing.assert_allclose(chunk[:, :6], six.predictions[number][:, :6], rtol=1e-3, atol=1e-5)


def test_reduce_gets_the_sums_once_and_its_result_counts(model):
    probe, given = make_probe(model.processor), []
    doubled = probe.measure(Echo(), reduce=lambda sums: given.append(sums) or 2 * sums)
    assert len(given) == 1
    assert torch.equal(doubled.sums.to_tensor(), 2 * given[0])
    assert probe.metrics(doubled)["eval_action_error"] > 0


def test_measuring_again_gives_the_same_and_leaves_the_model_in_training(model):
    probe, state = make_probe(model.processor), torch.get_rng_state()
    model.train()
    try:
        first, again = probe.measure(model), probe.measure(model)
        assert model.training and torch.equal(torch.get_rng_state(), state)
    finally:
        model.eval()
    assert torch.equal(first.sums.to_tensor(), again.sums.to_tensor())


def test_sums_of_datasets_add_up():
    frame = robot_frame()
    one = OpenLoopSums.of_chunk(np.zeros((16, 7)), frame, np.ones(7), [6])
    assert torch.equal((one + one).to_tensor(), 2 * one.to_tensor())
    assert (one + one).metrics(NAMES) == one.metrics(NAMES)
    with pytest.raises(ValueError, match="of 7 and of 26 action dimensions can't be added"):
        one + OpenLoopSums.zeros(26)


def test_nothing_assumes_seven_dimensions_or_no_state():
    names = [f"joint {dim}" for dim in range(26)]

    def wide(_, episode):
        return replace(episode, actions=np.zeros((8, 26), np.float32))

    config = InstructVLAConfig.nano(action_dim=26, state_dim=3, horizon=4)
    model = InstructVLAForConditionalGeneration(config)
    ranges = {"q01": [-1.0] * 26, "q99": [1.0] * 26}
    state = {"q01": [0.0] * 3, "q99": [1.0] * 3}
    model.processor = nano_processor(
        config,
        statistics={"reaching": {"action": ranges, "state": state}},
        control_rate_hz=None,
        action_names=names,
        action_units=["rad"] * 26,
        gripper_dims=[],
    )
    probe = make_probe(model.processor, Changed(ReachingEpisodes(2), wide), horizon=4)
    metrics = probe.metrics(probe.measure(model))
    assert [name for name in metrics if name.startswith("eval_action_mae/")] == [f"eval_action_mae/{n}" for n in names]


def test_repeated_names_get_their_number():
    assert distinct(["x", "finger", "finger"]) == ["x", "finger (1)", "finger (2)"]


# Refusals


def refused(change, message, processor=None, error=ValueError, **fields):
    reader = Changed(ReachingEpisodes(3), lambda _, episode: replace(episode, **change))
    with pytest.raises(error, match=message):
        make_probe(processor or nano_processor(statistics=STATISTICS, control_rate_hz=None), reader, **fields)


def test_episodes_that_do_not_fit_the_model_are_refused():
    refused({"actions": np.zeros((8, 26), np.float32)}, "reaching/., frame . has actions of 26 dimensions, .* have 7")
    refused({"images": {"wrist": [b""] * 8}}, r"has no camera 'primary', only \[\]", error=BadEpisodeError)
    refused({"images": {"primary": [b"no picture"] * 8}}, "frame .*can't be decoded", error=BadEpisodeError)
    refused({"dataset": "reachin"}, "unknown unnorm_key 'reachin'; .*nearest is 'reaching'", error=BadEpisodeError)
    refused({"instructions": [None] * 8}, "none of the 3 held-out episodes has an instruction")
    refused({"instructions": ["<|im_end|>"] * 8}, "reaching/., frame .*control tokens", error=BadEpisodeError)
    state = {"reaching": STATISTICS["reaching"] | {"state": {"q01": [0.0], "q99": [1.0]}}}
    with_state = nano_processor(InstructVLAConfig.nano(state_dim=1), statistics=state, control_rate_hz=None)
    refused({"states": None}, "needs a state of 1 values, got none", with_state, BadEpisodeError)


def test_other_settings_than_the_models_are_refused(model):
    refused({}, "chunks_per_episode is 0; give an integer of at least 1", chunks_per_episode=0)
    refused({}, "on_bad is 'ignore'; give 'raise' or 'skip'", on_bad="ignore")
    with pytest.raises(ValueError, match="the model's horizon is 8, but the probe's is 16"):
        make_probe(model.processor).measure(Echo(horizon=8))
    with pytest.raises(ValueError, match="rank is 1; with world_size 1"):
        make_probe(model.processor).measure(Echo(), rank=1)


def test_an_unreadable_episode_stops_or_is_skipped_and_noted(model):
    def broken(index, episode):
        if index:
            raise BadEpisodeError(f"episode {index} is truncated; copy it again")
        return episode

    reader = Changed(ReachingEpisodes(3), broken)
    with pytest.raises(BadEpisodeError, match="is truncated; copy it again"):
        make_probe(model.processor, reader)
    probe = make_probe(model.processor, reader, on_bad="skip")
    assert set(probe.skipped) == {1, 2} and "truncated" in probe.skipped[1]
    assert {frame.episode_id for frame in probe.chunks} == {"0"}


@pytest.mark.skipif(not BRIDGE.is_dir(), reason=f"the real Bridge episodes are not at {BRIDGE}")
def test_real_bridge_episodes_are_measured_with_their_own_statistics(model):
    reader = open_episodes(BRIDGE, "bridge")
    processor = nano_processor(statistics=compute_statistics(reader), control_rate_hz=None)
    probe = make_probe(processor, reader)
    model.processor, before = processor, model.processor
    try:
        metrics = probe.metrics(probe.measure(model))
    finally:
        model.processor = before
    assert 0.1 < metrics["eval_action_error"] < 1.0  # untrained
    assert metrics["eval_action_mae/x"] < 0.05  # m: no more than the range of such small motions
