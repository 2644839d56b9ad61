"""Claims about `instructvla load-test`."""

import json

import pytest
from typer.testing import CliRunner

from instructvla.evaluation import load_test
from instructvla.evaluation.load_disturbance import Disturbance
from instructvla.evaluation.policy_server import PolicyServer, running_server
from tests.stand_in_policy import StandInPolicy


def command(*arguments: str):
    return CliRunner().invoke(load_test.app, list(arguments))


@pytest.fixture
def url():
    with running_server(PolicyServer(StandInPolicy())) as address:
        yield address


def test_a_running_server_gives_a_row_for_each_number_of_clients_and_json(url, tmp_path):
    output = tmp_path / "load.json"
    result = command(url, "--clients", "1,3", "--seconds", "0.2", "--output", str(output))
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["1", "3"]
    assert all(name in header for name in ("p50, ms", "p99, ms", "answers/s"))
    stored = json.loads(output.read_text())
    assert [row["clients"] for row in stored] == [1, 3]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] and row["throughput"] > 0 for row in stored)


def test_bad_clients_are_reported_and_the_exit_code_tells(url, monkeypatch):
    found = Disturbance(2, 20, 20, {"flood": 3}, (), 1e-7, 10.0, 12.0)
    monkeypatch.setattr("instructvla.evaluation.load_disturbance.measure_disturbance", lambda *_: found)
    result = command(url, "--disturb")
    assert result.exit_code == 0 and result.stdout.endswith("\nnot affected\n") and "flood: 3 times" in result.stdout
    result = command(url, "--disturb", "--tolerance", "1e-8")
    assert result.exit_code == 1 and result.stdout.endswith("\nAFFECTED\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--clients", "1,two"], "--clients 1,two must be numbers from 1 to 256"),
        (["--clients", "0"], "--clients 0 must be"),
        (["--output", "/no/such/folder/load.json"], "can't be written"),
        (["--think", "--reuse-latent"], "exclude each other"),
        (["--no-think", "--think-in-background"], "exclude each other"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(url, arguments, reason):
    result = command(url, *arguments)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ") and reason in result.stderr and result.stderr.count("\n") == 1


def test_a_server_that_is_down_is_one_line(monkeypatch):
    monkeypatch.setattr("instructvla.evaluation.policy_client.RETRY_EVERY_S", 100.0)
    result = command("ws://127.0.0.1:9", "--clients", "1")
    assert result.exit_code == 2 and result.stderr.startswith("error: connection: no policy server answers")
