"""Claims about what is written after the checks."""

import json

import pytest

from instructvla.training.annotation.checked_output import (
    CheckedEpisodes,
    write_checked_episodes,
    write_checked_records,
)
from instructvla.training.data.parquet_reader import ParquetEpisodes
from tests.annotated_episodes import ANNOTATIONS, AnnotatedRecordings

LEFT_OUT = {0: frozenset({("cr", 1), ("qa", 0)}), 1: frozenset({("caption", 0)})}
RECORDS = {
    "/a/out.npy": {
        "0": {"features": {"move_primitive": ["stop", None]}, "alt_instruction": {"Caption": "A blue cup.", "QA": []}},
        "1": {"features": {}, "note": "kept"},
    },
    "/b/out.npy": {
        "0": {"alt_instruction": {"CC": [{"question": "Thirsty?", "answer": "Yes."}, {"question": "x", "answer": "y"}]}}
    },
}


def checked_episodes() -> CheckedEpisodes:
    return CheckedEpisodes(AnnotatedRecordings(), (), LEFT_OUT, {"languages": ["en"]})


def test_entries_are_left_out_and_an_annotation_of_which_nothing_is_left_too():
    first, second, third, fourth = checked_episodes().readable()
    assert first.annotation.rewritten == ANNOTATIONS[0].rewritten[:1] and first.annotation.questions == ()
    assert first.annotation.caption == ANNOTATIONS[0].caption
    assert second.annotation is None and third.annotation is None
    assert fourth.annotation == ANNOTATIONS[3]


def test_prepared_episodes_hold_what_is_left(tmp_path):
    write_checked_episodes(checked_episodes(), tmp_path / "checked", "memory", "train", workers=0)
    read = ParquetEpisodes(tmp_path / "checked")
    assert [episode.annotation for episode in read] == [episode.annotation for episode in checked_episodes().readable()]
    assert read.manifest["splits"]["train"]["settings"]["checks"]["languages"] == ["en"]


def test_other_checks_give_another_fingerprint():
    other = CheckedEpisodes(AnnotatedRecordings(), (), {}, {"languages": ["en"]})
    assert checked_episodes().fingerprint != other.fingerprint


def test_a_vla_it_file_holds_only_episodes_with_something_left(tmp_path):
    write_checked_episodes(checked_episodes(), tmp_path / "checked.json", "memory", "train", workers=0)
    assert list(json.loads((tmp_path / "checked.json").read_text())) == ["/robot/0/out.npy", "/robot/3/out.npy"]


def test_records_stay_as_they_are_but_for_the_rejected_entries(tmp_path):
    source, output = tmp_path / "source.json", tmp_path / "checked.json"
    source.write_text(json.dumps(RECORDS), encoding="utf-8")
    write_checked_records(source, output, {})
    assert json.loads(output.read_text()) == RECORDS
    write_checked_records(source, output, {0: frozenset({("caption", 0)}), 2: frozenset({("cc", 0)})})
    found = json.loads(output.read_text())
    assert found["/a/out.npy"]["0"]["alt_instruction"]["Caption"] is None
    assert found["/a/out.npy"]["0"]["features"] == RECORDS["/a/out.npy"]["0"]["features"]
    assert found["/a/out.npy"]["1"] == RECORDS["/a/out.npy"]["1"]
    assert found["/b/out.npy"]["0"]["alt_instruction"]["CC"] == [{"question": "x", "answer": "y"}]


def test_an_empty_file_stays_one(tmp_path):
    (tmp_path / "source.json").write_text("{}")
    write_checked_records(tmp_path / "source.json", tmp_path / "checked.json", {})
    assert json.loads((tmp_path / "checked.json").read_text()) == {}


def test_a_file_is_not_written_over_its_source(tmp_path):
    (tmp_path / "source.json").write_text("{}")
    for output in ("source.json", "folder"):
        with pytest.raises(ValueError, match="must be another .json file"):
            write_checked_records(tmp_path / "source.json", tmp_path / output, {})
