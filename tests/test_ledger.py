"""Claims about results that survive an interruption."""

import json
from dataclasses import replace

import pytest

from instructvla.evaluation.ledger import Ledger, Outcome, system_two_of
from instructvla.evaluation.system_two import Rewriting

SETTINGS = {"policy": "model", "name": "a", "weights": "1"}


def outcome(index: int = 0, success: bool = True) -> Outcome:
    return Outcome("pick up", index, 1, "pick it up", success, 3, responses=("I will.",), groups=("atomic",))


def test_outcomes_come_back(tmp_path):
    ledger = Ledger.open(tmp_path / "run", SETTINGS)
    ledger.add(outcome(0))
    ledger.add(outcome(1, False))
    read = Ledger.read(tmp_path / "run")
    assert read.settings == SETTINGS
    assert read.outcomes == {("pick up", 0): outcome(0), ("pick up", 1): outcome(1, False)} == ledger.outcomes


def test_a_trial_that_was_run_again_counts_once_with_its_last_outcome(tmp_path):
    ledger = Ledger.open(tmp_path, SETTINGS)
    ledger.add(outcome(0, False))
    Ledger.open(tmp_path, SETTINGS).add(outcome(0, True))
    assert Ledger.read(tmp_path).outcomes == {("pick up", 0): outcome(0, True)}


def test_a_half_written_last_line_is_left_out_and_overwritten(tmp_path):
    ledger = Ledger.open(tmp_path, SETTINGS)
    ledger.add(outcome(0))
    ledger.add(outcome(1))
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert list(Ledger.read(tmp_path).outcomes) == [("pick up", 0)]
    Ledger.open(tmp_path, SETTINGS).add(outcome(1))
    assert [json.loads(line)["index"] for line in file.read_text().splitlines()[1:]] == [0, 1]


def test_a_checkpoint_may_be_called_otherwise_but_not_be_another(tmp_path):
    Ledger.open(tmp_path, SETTINGS).add(outcome())
    assert len(Ledger.open(tmp_path, SETTINGS | {"name": "b"}).outcomes) == 1
    with pytest.raises(ValueError, match="other settings: weights was '1', is '2'. Give another folder"):
        Ledger.open(tmp_path, SETTINGS | {"weights": "2"})


def test_settings_without_a_result_are_written_anew(tmp_path):
    Ledger.open(tmp_path, SETTINGS)
    assert Ledger.open(tmp_path, SETTINGS | {"weights": "2"}).settings["weights"] == "2"
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(file.read_bytes()[:10])  # a kill in mid-line
    Ledger.open(tmp_path, SETTINGS).add(outcome())
    assert Ledger.read(tmp_path).settings == SETTINGS


def test_settings_may_hold_tuples_and_texts_of_any_language(tmp_path):
    settings = {"tasks": ("saisis la banane", "dé")}
    Ledger.open(tmp_path, settings)
    assert Ledger.open(tmp_path, settings).settings == {"tasks": ["saisis la banane", "dé"]}


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        Ledger.open(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_broken_line_is_named(tmp_path):
    Ledger.open(tmp_path, SETTINGS).add(outcome())
    file = tmp_path / "ledger.jsonl"
    first, *lines = file.read_text().splitlines()
    file.write_text("\n".join([first, "{}", *lines]) + "\n")
    with pytest.raises(ValueError, match=r"ledger.jsonl, line 2 is no outcome"):
        Ledger.read(tmp_path)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="has no results"):
        Ledger.read(tmp_path)


def test_what_system_two_made_of_an_instruction_comes_back_and_older_ledgers_are_read(tmp_path):
    helped = replace(outcome(0), rewritings=(Rewriting("clean up", "pick up the sponge", "strong-vlm", 100, 10, 0.5),))
    Ledger.open(tmp_path, SETTINGS).add(helped)
    assert Ledger.read(tmp_path).outcomes == {helped.key: helped}
    assert system_two_of([outcome(1), helped]) == "strong-vlm" and system_two_of([outcome(1)]) is None
    record = outcome(1).record()
    del record["rewritings"]
    assert Outcome.of_record(record) == outcome(1)
