"""Claims about the table of several runs."""

import json

from typer.testing import CliRunner

from instructvla.evaluation.ledger import Ledger, Outcome
from instructvla.evaluation.tabletop.failures import Cause
from instructvla.evaluation.tabletop.report import app, described
from tests.tabletop_policies import APPLE, THIRSTY

MODEL = {"policy": "model", "name": "checkpoints/tiny", "think": True, "ratio": 1, "weights": "1", "max_steps": 80}


def results(folder, settings, **successes: int):
    """Results with so many successes of 10 trials of each task."""
    ledger = Ledger.open(folder, settings)
    names = {"atomic": APPLE, "negation": THIRSTY}
    for key, count in successes.items():
        for index in range(10):
            cause = None if index < count else str(Cause.MISSED if index % 2 else Cause.NEVER_NEAR)
            ledger.add(Outcome(names[key], index, 1, "…", index < count, 9, cause=cause))
    return str(folder)


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_runs_become_rows_with_intervals_and_numbers_of_trials(tmp_path):
    first = results(tmp_path / "a", MODEL, atomic=9, negation=5)
    second = results(tmp_path / "b", {"policy": "expert", "max_steps": 80}, atomic=10)
    result = command(first, f"the ceiling={second}")
    assert result.exit_code == 0, result.output
    table = cells(result.stdout)
    assert table[0] == ["", "atomic", "situated"]
    assert table[2] == ["tiny, thinking", "90.0 % [59.6–98.2] (10)", "50.0 % [23.7–76.3] (10)"]
    assert table[3] == ["the ceiling", "100.0 % [72.2–100.0] (10)", "–"]
    assert table[4:8] == [
        ["", "negation"],
        ["---", "---"],
        ["tiny, thinking", "50.0 % [23.7–76.3] (10)"],
        ["the ceiling", "–"],
    ]
    assert table[8:] == [
        ["failures", "tiny, thinking", "the ceiling"],
        ["---", "---", "---"],
        [Cause.MISSED, "4", "0"],
        [Cause.NEVER_NEAR, "2", "0"],
    ]
    assert "note: tiny, thinking has levels of fewer than 200 trials." in result.stderr


def test_the_table_is_written_as_markdown_and_json(tmp_path):
    run = results(tmp_path / "a", MODEL, atomic=9)
    output = tmp_path / "new" / "table.md"
    assert command(run, "--output", str(output)).exit_code == 0
    assert cells(output.read_text())[2][0] == "tiny, thinking"
    (record,) = json.loads(output.with_suffix(".json").read_text())
    assert record["title"] == "tiny, thinking" and record["settings"] == MODEL
    assert record["rates"]["atomic"]["successes"] == 9 and record["rates"]["atomic"]["trials"] == 10
    assert record["causes"] == {Cause.MISSED: 1}


def test_titles_tell_settings_apart():
    titles = {described(MODEL | change) for change in ({}, {"think": False}, {"ratio": 2}, {"name": "other"})}
    assert titles == {"tiny, thinking", "tiny, not thinking", "tiny, thinking, 1:2", "other, thinking"}
    assert described({"policy": "random"}) == "random actions"


def test_rows_of_other_benchmarks_are_refused(tmp_path):
    first = results(tmp_path / "a", MODEL, atomic=9)
    second = results(tmp_path / "b", MODEL | {"max_steps": 40}, atomic=10)
    result = command(first, f"short={second}")
    assert result.exit_code == 2 and "short can't stand beside tiny, thinking: max_steps is 40" in result.stderr


def test_bad_input_is_one_line_on_stderr(tmp_path):
    empty = results(tmp_path / "empty", MODEL)
    for arguments, message in [
        ([str(tmp_path / "none")], "has no results"),
        ([empty], "has no outcomes yet"),
        ([empty, "--output", "table.txt"], "must end in .md"),
    ]:
        result = command(*arguments)
        assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr
