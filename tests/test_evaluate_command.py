"""Claims about `instructvla evaluate`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.evaluate_command import app, chosen_schedule
from instructvla.evaluation.ledger import Ledger
from instructvla.evaluation.policy_server import PolicyServer, running_server
from instructvla.evaluation.scripted_policies import scripted_policy
from tests.chat_server import Behaviour, ChatServer

BENCHMARK = "tests.stand_in_benchmark"


@pytest.fixture(scope="module")
def url():
    with running_server(PolicyServer(scripted_policy("random"))) as address:
        yield address


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_rates_are_printed_by_group_with_what_makes_them_differ(url, tmp_path):
    result = command(BENCHMARK, url, "--output", tmp_path / "run", "--trials", "2", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Points: success") and "note: a point stands in" in result.stdout
    assert "| near | 2/2 | 100.0 % [34.2–100.0] |" in result.stdout and "| far | 0/2 |" in result.stdout
    ledger = Ledger.read(tmp_path / "run")
    assert ledger.settings["benchmark"] == BENCHMARK and ledger.settings["simulator"] == {"point": "1.0"}
    assert ledger.settings["policy"] == "random"
    assert len(ledger.outcomes) == 4


def test_a_second_call_goes_on_and_other_settings_are_refused(url, tmp_path):
    assert command(BENCHMARK, url, "--output", tmp_path, "--tasks", "near", "--trials", "1").exit_code == 0
    first = (tmp_path / "ledger.jsonl").read_text()
    assert command(BENCHMARK, url, "--output", tmp_path, "--trials", "1").exit_code == 0
    assert (tmp_path / "ledger.jsonl").read_text().startswith(first) and len(Ledger.read(tmp_path).outcomes) == 2
    result = command(BENCHMARK, url, "--output", tmp_path, "--open-loop", "1")
    assert result.exit_code == 2 and "schedule was 'released', is 'open loop of 1'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no benchmark 'nowhere'; there are tabletop, "),
        ([BENCHMARK, "--tasks", "left"], "no task 'left'; there are near, far"),
        ([BENCHMARK, "--open-loop", "0"], "at least 1 action of a chunk, got 0"),
        ([BENCHMARK, "--open-loop", "1", "--temporal", "0.1"], "exclude each other"),
        ([BENCHMARK, "--unnorm-key", "mine"], "and none of mine for"),
    ],
)
def test_bad_input_is_one_line(url, tmp_path, arguments, message):
    result = command(arguments[0], url, "--output", tmp_path / "run", *arguments[1:])
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith("error: ") and message in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_server_that_is_down_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("instructvla.evaluation.policy_client.RETRY_EVERY_S", 100.0)
    result = command(BENCHMARK, "ws://127.0.0.1:9", "--output", tmp_path / "run")
    assert result.exit_code == 2 and "no policy server answers" in result.stderr and not (tmp_path / "run").exists()


def test_schedules_have_names():
    assert chosen_schedule() == ("released", None)
    assert chosen_schedule(4)[0] == "open loop of 4" and chosen_schedule(4)[1]().steps == 4
    assert (
        chosen_schedule(adaptive=8)[0] == "adaptive ensembling of 8" and chosen_schedule(adaptive=8)[1]().needs_chunk()
    )
    assert chosen_schedule(temporal=0.01)[0] == "temporal ensembling, decay 0.01"
    name, make = chosen_schedule(real_time=5, delay=2)
    assert name == "real-time chunking, every 5" and (make().every, make().delay) == (5, 2)
    with pytest.raises(ValueError, match="--delay 3 needs --real-time K"):
        chosen_schedule(open_loop=4, delay=3)


def test_a_system_two_has_a_row_of_its_own_and_its_cost_is_told(url, tmp_path):
    run = tmp_path / "run"
    with ChatServer(lambda body, number: '{"instruction": "reach the place"}') as server:
        helper = ["--system-two-endpoint", server.url, "--system-two-model", "strong-vlm"]
        result = command(BENCHMARK, url, "--output", run, "--trials", "1", "--tasks", "far", *helper)
    assert result.exit_code == 0, result.output
    assert "rate + System 2 (strong-vlm), 95 % interval" in result.stdout
    assert "System 2 (strong-vlm): 1 instructions rewritten, 1,000 tokens in, 100 out" in result.stdout
    ledger = Ledger.read(run)
    assert ledger.settings["name"] == "random + System 2 (strong-vlm)"
    assert ledger.settings["system_two"]["model"] == "strong-vlm"
    ((rewriting,),) = (outcome.rewritings for outcome in ledger.outcomes.values())
    assert (rewriting.instruction, rewriting.atomic) == ("reach it", "reach the place")
    result = command(BENCHMARK, url, "--output", run, "--trials", "1")
    assert result.exit_code == 2 and "system_two was {" in result.stderr and "is None" in result.stderr


def test_a_system_two_that_talks_nonsense_leaves_trials_without_a_verdict(url, tmp_path):
    with ChatServer(lambda body, number: "no idea") as server:
        helper = ["--system-two-endpoint", server.url, "--system-two-model", "strong-vlm"]
        result = command(BENCHMARK, url, "--output", tmp_path / "run", "--trials", "1", *helper)
    assert result.exit_code == 0
    assert "1 without a verdict, to be run again; far: System 2 (strong-vlm) gave no plain instruction" in result.stdout


def test_a_system_two_that_can_not_be_used_is_one_line(url, tmp_path):
    with ChatServer(lambda body, number: Behaviour(status=401)) as server:
        helper = ["--system-two-endpoint", server.url, "--system-two-model", "strong-vlm"]
        result = command(BENCHMARK, url, "--output", tmp_path / "run", "--trials", "1", *helper)
    assert result.exit_code == 2 and "is not accepted" in result.stderr
    result = command(BENCHMARK, url, "--output", tmp_path / "run", "--system-two-model", "strong-vlm")
    assert result.exit_code == 2 and "go together" in result.stderr
