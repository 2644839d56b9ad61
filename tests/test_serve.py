"""Claims about `instructvla serve`; a whole serving process is in test_load_test."""

import asyncio
import os
import signal
import socket
import threading

import pytest
from typer.testing import CliRunner

from instructvla.evaluation import serve, served_policy
from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError
from instructvla.evaluation.policy_server import PolicyServer, bound_socket, url_of
from tests.stand_in_policy import FRAME, StandInPolicy, wait_until


def command(*arguments: str):
    return CliRunner().invoke(serve.app, list(arguments))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_request_end_and_then_stops(number, capsys):
    policy = StandInPolicy()
    policy.gate.clear()
    sock = bound_socket("127.0.0.1", 0)
    url, outcome = url_of(sock), []

    def ask_and_signal():
        with PolicyClient(url) as client:
            asking = threading.Thread(target=lambda: outcome.append(client.act(FRAME, "go", seed=3).actions[0, 0]))
            asking.start()
            wait_until(lambda: policy.batches)
            os.kill(os.getpid(), number)
            with pytest.raises(PolicyError, match="shutting down"):
                wait_until(lambda: PolicyClient(url).close())
            policy.gate.set()
            asking.join(10)

    robot = threading.Thread(target=ask_and_signal, daemon=True)
    robot.start()
    asyncio.run(asyncio.wait_for(serve.serve_until_signal(PolicyServer(policy), sock, "ready"), 20))
    robot.join(10)
    assert outcome == [3]
    out, err = capsys.readouterr()
    assert out == "ready\n" and err.startswith("stopping: ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["/no/such/folder"], "neither a folder nor the name of a Hub repository"),
        (["nano", "--device", "gpu"], "--device gpu can't be used"),
        (["random", "--compile"], "--compile is for models, and random is none"),
        (["nano", "--max-batch", "0"], "max_batch must be above 0, got 0"),
        (["nano", "--deadline-s", "nan"], "deadline_s must be above 0, got nan"),
        (["nano", "--token", ""], "--token must be of ASCII characters"),
        (["nano", "--token", "schlüssel"], "--token must be of ASCII characters"),
        (["nano", "--host", "no.such.host.invalid"], "can't listen on no.such.host.invalid:"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, reason):
    result = command(*arguments, "--port", "0")
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ") and reason in result.stderr and result.stderr.count("\n") == 1


def test_a_port_in_use_is_told_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(served_policy, "load_policy", lambda *_: pytest.fail("the model was loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = command("nano", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 2 and "Give another --host or --port" in result.stderr


def test_a_compiled_model_is_prepared_for_its_batches_before_it_is_served(monkeypatch):
    order = []

    class Policy(StandInPolicy):
        def prepare(self, max_batch):
            order.append(max_batch)
            return "inductor kernels, 7 shapes prepared"

    async def served(server, sock, announce):
        sock.close()
        order.append(announce.partition(" at ")[0])

    monkeypatch.setattr(served_policy, "load_policy", lambda *_: Policy())
    monkeypatch.setattr(serve, "serve_until_signal", served)
    result = command("nano", "--port", "0", "--compile", "--max-batch", "6")
    assert result.exit_code == 0 and result.stdout == "inductor kernels, 7 shapes prepared\n"
    assert order == [6, "serving nano on none"]


@pytest.mark.parametrize(
    ("host", "open_to_others"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("robot.lab", True)],
)
def test_only_addresses_of_this_machine_are_closed_to_others(host, open_to_others):
    assert serve.is_open_to_others(host) is open_to_others
