"""Claims about a run's data: what is held out is not trained on, and statistics are those of the data."""

import json
import logging
import sys
from dataclasses import replace
from itertools import islice

import pytest
import torch

from instructvla.training.data.stream_loader import StreamLoader
from instructvla.training.run_config import ChatSource, DatasetSource, DataSettings, EvaluationSettings
from instructvla.training.training_data import check_pictures, open_chat, open_datasets
from tests.reaching_episodes import ReachingEpisodes, write_chat, write_reaching
from tests.training_inputs import nano_for, reaching_datasets, stream_maker


def opened(folder, evaluation=None, **settings):
    source = folder / "reaching"
    if not source.exists():
        write_reaching(source, 8)
    data = DataSettings(**({"datasets": [DatasetSource(str(source))]} | settings))
    return open_datasets(data, evaluation or EvaluationSettings(episodes=2), folder / "out", seed=0)


def ids(reader):
    return {reader[number].episode_id for number in range(len(reader))}


def test_held_out_episodes_are_not_trained_on(tmp_path):
    datasets = opened(tmp_path)
    training, held_out = ids(datasets.training["reaching"]), ids(datasets.held_out["reaching"])
    assert len(training) == 6 and len(held_out) == 2 and not training & held_out
    again = opened(tmp_path)
    assert ids(again.held_out["reaching"]) == held_out


def test_another_split_may_be_held_out_and_then_all_are_trained_on(tmp_path):
    from instructvla.training.data.prepare import prepare

    write_reaching(tmp_path / "reaching", 8)
    prepare(ReachingEpisodes(3, first=100), tmp_path / "reaching", split="val")
    datasets = opened(tmp_path, EvaluationSettings(episodes=2, split="val"))
    assert len(datasets.training["reaching"]) == 8
    assert ids(datasets.held_out["reaching"]) < {"100", "101", "102"}


def test_holding_out_everything_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 8 episodes, of which evaluation.episodes=8 are held out"):
        opened(tmp_path, EvaluationSettings(episodes=8))


def test_a_share_of_the_annotations_is_used(tmp_path):
    reader = opened(tmp_path, EvaluationSettings(episodes=0), annotated_share=0.25).training["reaching"]
    annotated = [reader[number].annotation is not None for number in range(8)]
    assert sum(annotated) == 2
    full = opened(tmp_path, EvaluationSettings(episodes=0)).training["reaching"]
    assert reader.fingerprint != full.fingerprint


def test_statistics_are_computed_once_and_kept_in_the_output_folder(tmp_path):
    first = opened(tmp_path)
    path = tmp_path / "out" / "dataset_statistics.json"
    written = path.stat().st_mtime_ns
    assert opened(tmp_path).statistics == first.statistics and path.stat().st_mtime_ns == written
    assert first.statistics["reaching"]["num_trajectories"] == 8
    assert first.control_rates == {"reaching": 5.0}


def test_the_frames_are_those_of_the_episodes_that_are_trained_on(tmp_path):
    """Episodes of 1 to 8 steps, of which the held-out ones do not count."""
    from instructvla.training.data.prepare import prepare

    prepare(OfManyLengths(8), tmp_path / "lengths")
    datasets = opened(tmp_path, datasets=[DatasetSource(str(tmp_path / "lengths"))])
    training, held_out = datasets.training["reaching"], datasets.held_out["reaching"]
    trained = sum(len(training[number]) for number in range(len(training)))
    assert datasets.frames == {"reaching": trained} and datasets.weights == {"reaching": trained}
    assert trained + sum(len(held_out[number]) for number in range(2)) == sum(range(1, 9))


class OfManyLengths(ReachingEpisodes):
    """Episode i has i + 1 steps."""

    def __getitem__(self, index):
        episode, steps = super().__getitem__(index), index + 1
        return replace(
            episode,
            images={name: pictures[:steps] for name, pictures in episode.images.items()},
            actions=episode.actions[:steps],
            states=episode.states[:steps],
            instructions=episode.instructions[:steps],
            language_motions=episode.language_motions[:steps],
        )


def test_evaluation_without_matplotlib_is_refused_before_the_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"matplotlib is missing: pip install 'instructvla\[train\]'"):
        opened(tmp_path)
    assert not (tmp_path / "out").exists()
    assert len(opened(tmp_path, EvaluationSettings(episodes=0)).training["reaching"]) == 8


def test_missing_conversations_and_pictures_are_refused(tmp_path):
    chat = write_chat(tmp_path / "chat.json", 8)
    (tmp_path / "images" / "4.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 8 conversations looked at lack a picture, such as .*4\.png"):
        check_pictures(open_chat(ChatSource(str(chat))), "raise")
    with pytest.raises(ValueError, match="there is no chat file .*none.json"):
        open_chat(ChatSource(str(tmp_path / "none.json")))


def test_some_missing_pictures_are_counted_and_skipped_but_not_all(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("instructvla"), "propagate", True)
    chat = write_chat(tmp_path / "chat.json", 8)
    (tmp_path / "images" / "4.png").unlink()
    check_pictures(open_chat(ChatSource(str(chat))), "skip")
    assert "1 of 8 conversations looked at lack a picture" in caplog.text
    with pytest.raises(ValueError, match="4 of 8 conversations .*Correct data.chat.image_folder"):
        check_pictures(open_chat(ChatSource(str(chat), image_folder=str(tmp_path / "elsewhere"))), "skip")


def test_statistics_of_other_data_are_refused(tmp_path):
    opened(tmp_path)
    write_reaching(tmp_path / "more", 9)
    stale = str(tmp_path / "out" / "dataset_statistics.json")
    with pytest.raises(ValueError, match="the statistics of 'reaching' are stale"):
        opened(tmp_path, datasets=[DatasetSource(str(tmp_path / "more"))], statistics=stale)


def test_two_datasets_of_one_name_are_refused(tmp_path):
    write_reaching(tmp_path / "reaching", 4)
    with pytest.raises(ValueError, match="two datasets are called 'reaching'"):
        opened(tmp_path, datasets=[DatasetSource(str(tmp_path / "reaching"))] * 2)


def test_datasets_whose_actions_mean_something_else_are_refused(tmp_path):
    from instructvla.training.data.prepare import prepare

    write_reaching(tmp_path / "reaching", 4)
    other = ReachingEpisodes(4, dataset="other")
    other.description = replace(other.description, action_units=("mm", *other.description.action_units[1:]))
    prepare(other, tmp_path / "other")
    sources = [DatasetSource(str(tmp_path / name)) for name in ("reaching", "other")]
    with pytest.raises(ValueError, match="reaching and other have different action_units"):
        opened(tmp_path, datasets=sources)
    assert not (tmp_path / "out").exists()  # no statistics were computed for nothing


def batches(make, count, num_workers=0, state=None):
    loader = StreamLoader(make, num_workers=num_workers)
    if state is not None:
        loader.load_state_dict(state)
    return loader, list(islice(loader, count))


def test_a_resumed_stream_gives_the_same_batches_noise_included(tmp_path):
    datasets, settings = reaching_datasets(tmp_path)
    model = nano_for(datasets)
    make = stream_maker(model, datasets, settings)
    _, whole = batches(make, 6)
    loader, _ = batches(make, 2)
    _, rest = batches(make, 4, state=json.loads(json.dumps(loader.state_dict())))
    for batch, same in zip(rest, whole[2:], strict=True):
        assert batch["sample_names"] == same["sample_names"]
        assert all(torch.equal(batch[name], same[name]) for name in batch if name != "sample_names")
    assert not torch.equal(whole[0]["noise"], whole[1]["noise"])


def test_two_ranks_get_what_two_workers_of_one_rank_get(tmp_path):
    """So that a run on two processes has the loss curve of one process that accumulates two batches."""
    datasets, settings = reaching_datasets(tmp_path)
    model = nano_for(datasets)
    _, together = batches(stream_maker(model, datasets, settings), 6, num_workers=2)
    for rank in (0, 1):
        _, own = batches(stream_maker(model, datasets, settings, rank=rank, world_size=2), 3)
        for batch, same in zip(own, together[rank::2], strict=True):
            assert batch["sample_names"] == same["sample_names"]
            assert torch.equal(batch["noise"], same["noise"])
            assert torch.equal(batch["pixel_values"], same["pixel_values"])


def test_of_eight_steps_one_is_chat_on_every_rank_alike(tmp_path):
    datasets, settings = reaching_datasets(tmp_path)
    settings = replace(settings, chat=ChatSource(str(write_chat(tmp_path / "chat.json"))))
    model = nano_for(datasets)
    kinds = []
    for rank in (0, 1):
        make = stream_maker(model, datasets, settings, {"action": 1.0}, rank=rank, world_size=2)
        kinds.append(["actions" in batch for batch in batches(make, 16)[1]])
    assert kinds[0] == kinds[1] and sum(kinds[0]) == 14 and sum(kinds[0][:8]) == 7


class LongInstruction(ReachingEpisodes):
    """Every other episode's instruction is far beyond any budget."""

    def __getitem__(self, index):
        episode = super().__getitem__(index)
        texts = ["please " * 3000] * len(episode) if index % 2 else episode.instructions
        return replace(episode, instructions=texts)


def with_overlong_texts(tmp_path, on_bad):
    """Datasets, settings and a model, half of whose episodes and chat records do not fit into the budget."""
    from instructvla.training.data.prepare import prepare

    prepare(LongInstruction(8), tmp_path / "long")
    chat = write_chat(tmp_path / "chat.json")
    records = json.loads(chat.read_text())
    for record in records[::2]:
        record["conversations"][0]["value"] += " please" * 3000
    chat.write_text(json.dumps(records))
    sources = [DatasetSource(str(tmp_path / "long"))]
    settings = DataSettings(
        datasets=sources, chat=ChatSource(str(chat)), on_bad=on_bad, shuffle_window=16, max_length=512
    )
    datasets = open_datasets(settings, EvaluationSettings(episodes=0), tmp_path / "statistics", 0)
    return datasets, settings, nano_for(datasets)


def test_what_does_not_fit_into_the_token_budget_is_skipped_and_resuming_stays_exact(tmp_path):
    datasets, settings, model = with_overlong_texts(tmp_path, "skip")
    make = stream_maker(model, datasets, settings, {"action": 1.0})
    loader, whole = batches(make, 16)
    assert sum("actions" in batch for batch in whole) == 14 and {len(batch["labels"]) for batch in whole} == {2}
    assert all((batch["labels"] != -100).any(dim=1).all() for batch in whole)
    (state,) = loader.state_dict()["workers"]
    streams = state["batches"]["streams"]
    assert streams["robot"]["bad"] > 0 and streams["chat"]["skipped"]
    assert all("no label is left" in reason for _, reason in streams["chat"]["skipped"])
    begun, _ = batches(make, 9)
    _, rest = batches(make, 7, state=json.loads(json.dumps(begun.state_dict())))
    assert [batch["sample_names"] for batch in rest] == [batch["sample_names"] for batch in whole[9:]]


def test_what_does_not_fit_into_the_token_budget_stops_a_run_by_default(tmp_path):
    datasets, settings, model = with_overlong_texts(tmp_path, "raise")
    with pytest.raises(
        ValueError, match=r"\(action\) has [\d,]+ tokens with its action queries, but max_length is 512"
    ):
        batches(stream_maker(model, datasets, settings, {"action": 1.0}), 16)
