"""Claims about `instructvla compare`."""

import json

from typer.testing import CliRunner

from instructvla.evaluation.compare import app
from instructvla.evaluation.ledger import Ledger, Outcome


def run(folder, successes: int, trials: int = 12, **settings) -> str:
    ledger = Ledger.open(folder, {"benchmark": "points", "name": folder.name, "think": True} | settings)
    for index in range(trials):
        ledger.add(Outcome("task", index, index, "do it", index < successes, 1, groups=("easy",)))
    return str(folder)


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_rates_tests_and_settings_are_printed_and_written(tmp_path):
    worse, better = run(tmp_path / "a", 3, think=False), run(tmp_path / "b", 12, trials=13)
    result = command(worse, better, "--output", str(tmp_path / "compared.json"))
    assert result.exit_code == 0, result.output
    assert "think: False | True" in result.stdout and "B is better" in result.stdout
    assert "25.0 % [8.9–53.2]" in result.stdout and "1 of B's 13 trials have no counterpart" in result.stdout
    written = json.loads((tmp_path / "compared.json").read_text())["groups"]["easy"]
    assert (written["only_first"], written["only_second"]) == (0, 9)


def test_a_small_difference_is_called_noise(tmp_path):
    result = command(run(tmp_path / "a", 6), run(tmp_path / "b", 7))
    assert result.stdout.count("noise") >= 2 and "is better" not in result.stdout


def test_an_output_that_can_not_be_written_is_refused_before_anything_is_printed(tmp_path):
    result = command(run(tmp_path / "a", 6), run(tmp_path / "b", 7), "--output", str(tmp_path / "no" / "where.json"))
    assert result.exit_code == 2 and "can't be written" in result.stderr and not result.stdout


def test_runs_of_different_benchmarks_are_not_compared(tmp_path):
    result = command(run(tmp_path / "a", 6), run(tmp_path / "b", 7, benchmark="lines"))
    assert result.exit_code == 2 and "is of 'points' and" in result.stderr and "compare like with like" in result.stderr
