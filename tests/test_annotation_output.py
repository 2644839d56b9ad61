"""Claims about what a run leaves: the same annotations in VLA-IT's layout and in Parquet, ready for stage 2."""

import json

import datasets
import pytest

from instructvla.training.annotation.annotation_journal import PaidReply
from instructvla.training.annotation.annotation_output import (
    OutputSettings,
    grouped_reasons,
    told_cost,
    write_output,
)
from instructvla.training.annotation.answer_format import parse_answer
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.sample_shares import sample_shares
from instructvla.training.data.samples import STAGE_2
from instructvla.training.data.vla_it import VlaItIndex
from instructvla.training.run_config import DatasetSource, DataSettings, EvaluationSettings
from instructvla.training.training_data import open_datasets
from tests.annotation_answers import BROKEN_PICTURES, NO_INSTRUCTION, annotation_answer, changed_episodes, open_journal
from tests.memory_episodes import bridge_episodes

COUNT = 5


def add(journal, *episodes, **changes):
    for episode in episodes:
        text = json.dumps(annotation_answer(episode, **changes))
        journal.add(PaidReply(episode, f"put object {episode} on the plate", text, 1000, 100, 0.01, "strong-vlm"))


@pytest.fixture
def journal(tmp_path):
    with open_journal(tmp_path) as journal:
        add(journal, 0, 1, 2)
        yield journal


def test_both_layouts_hold_the_same_annotations_joined_to_their_episodes(tmp_path, journal):
    write_output(bridge_episodes(COUNT), journal, OutputSettings())
    prepared = ParquetEpisodes(tmp_path / "episodes")
    index = VlaItIndex.read([tmp_path / "vla_it.json"])
    assert len(prepared) == COUNT and len(index) == 3
    for number, plain in enumerate(bridge_episodes(COUNT)[n] for n in range(COUNT)):
        expected = parse_answer(json.dumps(annotation_answer(number))) if number < 3 else None
        assert prepared[number].annotation == index.join(plain, 1, 2).annotation == expected
        assert prepared[number].images == plain.images and prepared[number].instructions == plain.instructions
    assert index.report().misfits == 0  # a null for each step of the recording, also for those that the mapping drops


def test_the_episodes_are_a_dataset_of_stage_2(tmp_path, journal):
    write_output(bridge_episodes(COUNT), journal, OutputSettings())
    settings = DataSettings(datasets=[DatasetSource(str(tmp_path / "episodes"))])
    opened = open_datasets(settings, EvaluationSettings(episodes=0), tmp_path / "statistics", seed=0)
    (reader,) = opened.training.values()
    assert sum(reader[number].annotation is not None for number in range(len(reader))) == 3
    shares = sample_shares(reader, STAGE_2, frames=200, show=0)
    assert {kind for (_, kind), count in shares.counts.items() if count} == set(STAGE_2)
    hub = datasets.load_dataset("parquet", data_files=str(tmp_path / "episodes/data/*.parquet"), split="train")
    assert hub[0]["annotation"]["caption"] == annotation_answer(0)["caption"]


def test_more_answers_replace_what_was_written(tmp_path, journal):
    write_output(bridge_episodes(COUNT), journal, OutputSettings())
    add(journal, 3, caption="The robot stands still.")
    report = write_output(bridge_episodes(COUNT), journal, OutputSettings())
    assert ParquetEpisodes(tmp_path / "episodes")[3].annotation.questions
    assert len(VlaItIndex.read([tmp_path / "vla_it.json"])) == 4 and report["entries"]["captions"] == 3
    (rejection,) = map(json.loads, (tmp_path / "rejections.jsonl").read_text().splitlines())
    assert rejection["episode"] == 3 and rejection["reason"] == "mentions the robot"
    names = {"episodes", "journal.jsonl", "rejections.jsonl", "report.json", "vla_it.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_the_report_counts_every_episode_once(tmp_path, journal):
    reader = changed_episodes(7, {4: NO_INSTRUCTION, 5: BROKEN_PICTURES})
    journal.exclude(4, "no instruction")
    journal.exclude(5, "it can't be read: …")
    journal.add(PaidReply(6, "put object 6 on the plate", "no", 1000, 100, 0.01, "strong-vlm"))
    report = write_output(reader, journal, OutputSettings())
    counts = ("annotated", "without_instruction", "unreadable", "unusable", "not_asked")
    assert [report[name] for name in counts] == [3, 1, 1, 1, 1] and report["episodes"] == 7
    assert report["answers_paid"] == 4 and report["answers_unusable"] == {"it holds no JSON object": 1}
    assert report["cost_usd"] == 0.04 and report["models"] == {"strong-vlm": 4}
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert len(ParquetEpisodes(tmp_path / "episodes")) == 6  # the one that can't be read is left out


def test_the_episodes_themselves_are_written_only_if_wanted(tmp_path, journal):
    write_output(bridge_episodes(COUNT), journal, OutputSettings(parquet=False))
    assert (tmp_path / "vla_it.json").is_file() and not (tmp_path / "episodes").exists()


def test_without_an_answer_there_is_nothing_to_write(tmp_path):
    with open_journal(tmp_path) as journal, pytest.raises(ValueError, match="has no answer that can be used yet"):
        write_output(bridge_episodes(COUNT), journal, OutputSettings())


def test_a_cost_is_told_as_far_as_it_is_known():
    assert told_cost(1234.5, 0, 10) == "$1,234.50"
    assert told_cost(1.0, 2, 10) == "$1.00 and that of 2 answers whose tokens or prices are unknown"
    assert told_cost(0.0, 10, 10) == "unknown"
    assert told_cost(0.0, 0, 0) == "$0.00"
    assert grouped_reasons({"entry 1 is bad": 2, "entry 2 is bad": 1}) == {"entry # is bad": 3}
