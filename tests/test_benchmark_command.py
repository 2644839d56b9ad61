"""Claims about `instructvla tabletop`."""

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.ledger import Ledger, Outcome
from instructvla.evaluation.tabletop import benchmark_command
from instructvla.evaluation.tabletop.benchmark_command import app, make_policy, rate_lines
from instructvla.evaluation.tabletop.policies import ExpertPolicy, ModelPolicy, RandomPolicy
from tests.tabletop_policies import APPLE, CLOSE, THIRSTY, shared_model


@pytest.fixture(autouse=True)
def checkpoint(monkeypatch):
    def load(name):
        if name != "tiny":
            raise ValueError(f"there is no checkpoint {name}")
        return shared_model()

    monkeypatch.setattr(benchmark_command, "load_checkpoint", load)


def command(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_the_expert_s_rates_are_printed_per_level_and_category(tmp_path):
    asked = ["--policy", "expert", "--tasks", APPLE, "--tasks", THIRSTY, "--trials", "2", "--environments", "2"]
    result = command(*asked, "--output", str(tmp_path / "expert"))
    assert result.exit_code == 0, result.output
    rows = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["atomic", "2/2"] in rows and ["situated_reasoning", "2/2"] in rows and ["negation", "2/2"] in rows
    assert "100.0 % [34.2–100.0]" in result.stdout
    assert len(Ledger.read(tmp_path / "expert").outcomes) == 4


def test_options_reach_the_model_and_the_settings(tmp_path):
    options = ["--no-think", "--ratio", "2", "--execute", "8", "--max-steps", "8", "--tasks", CLOSE, "--trials", "1"]
    result = command("tiny", *options, "--output", str(tmp_path / "tiny"))
    assert result.exit_code == 0, result.output
    ledger = Ledger.read(tmp_path / "tiny")
    expected = {"name": "tiny", "think": False, "ratio": 2, "execute": 8, "rethink": None, "max_steps": 8}
    assert expected.items() <= ledger.settings.items()
    assert [outcome.decisions for outcome in ledger.outcomes.values()] == [1]


def test_another_call_on_the_same_folder_is_refused_if_its_settings_differ(tmp_path):
    options = ["--tasks", CLOSE, "--trials", "1", "--max-steps", "4", "--output", str(tmp_path)]
    assert command("tiny", "--no-think", *options).exit_code == 0
    result = command("tiny", "--no-think", "--ratio", "2", *options)
    assert result.exit_code == 2 and "ratio was 1, is 2" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "--tasks", "atomik"], "nearest is 'atomic'"),
        (["missing"], "there is no checkpoint missing"),
        ([], "give a checkpoint folder"),
        (["tiny", "--policy", "expert"], "--policy expert takes no checkpoint, but tiny is given"),
        (["--policy", "random", "--ratio", "2"], "--policy random has no --ratio"),
    ],
)
def test_bad_input_is_one_line_on_stderr(arguments, message):
    result = command(*arguments)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr
    assert not result.stdout


def test_each_kind_of_policy_can_be_made():
    assert isinstance(make_policy("model", "tiny"), ModelPolicy)
    assert isinstance(make_policy("expert", None), ExpertPolicy)
    assert isinstance(make_policy("random", None), RandomPolicy)


def test_episodes_that_broke_off_are_told():
    broken = Outcome(APPLE, 0, 1, "pick up the apple", False, 3, error="actions were not finite")
    assert rate_lines([broken])[-1] == f"1 broke off, the first ({APPLE}): actions were not finite"
