"""Claims about bad clients and those who measure what they do."""

import time
from contextlib import suppress
from dataclasses import replace

import pytest
from websockets.exceptions import WebSocketException

from instructvla.evaluation import load_disturbance
from instructvla.evaluation.load_disturbance import ATTACKS, Disturbance, measure_disturbance
from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError
from instructvla.evaluation.policy_server import PolicyServer, ServerLimits, running_server
from instructvla.evaluation.served_policy import ServedPolicy
from instructvla.nano import untrained_nano
from tests.stand_in_policy import FRAME, StandInPolicy


def eventually(true) -> bool:
    for _ in range(500):
        if true():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True)
def smaller(monkeypatch):
    monkeypatch.setattr(load_disturbance, "OVERSIZE_BYTES", 3 * 2**20)
    monkeypatch.setattr(load_disturbance, "FLOOD", 5)


def test_good_clients_of_a_real_model_do_not_notice_bad_ones():
    policy = ServedPolicy(untrained_nano(seed=0), "nano", max_new_tokens=2)
    limits = ServerLimits(max_message_mb=2, grace_s=5)
    with running_server(PolicyServer(policy, limits, "token")) as url:
        found = measure_disturbance(url, clients=2, requests=3, token="token")
    assert found.answers == 6 and found.failures == ()
    assert found.attacks.keys() == ATTACKS.keys() and min(found.attacks.values()) > 0
    assert found.largest_difference < 1e-6 and not found.affected(1e-6)


@pytest.mark.parametrize("name", ATTACKS)
def test_after_each_attack_the_server_answers_and_has_no_client_left_over(name):
    policy = StandInPolicy()
    server = PolicyServer(policy, ServerLimits(max_message_mb=2, grace_s=5))
    with running_server(server) as url:
        with suppress(OSError, WebSocketException):
            ATTACKS[name](url, None)
        with PolicyClient(url) as client:
            assert client.act(FRAME, "go", seed=2).actions[0, 0] == 2
        assert eventually(lambda: server.health()[1]["clients"] == 0)


def test_a_server_whose_answers_change_is_called_affected():
    calls = iter(range(1000))

    class Drifting(StandInPolicy):
        def act(self, requests):
            return [replace(result, actions=result.actions + next(calls)) for result in super().act(requests)]

    with running_server(PolicyServer(Drifting())) as url:
        found = measure_disturbance(url, clients=1, requests=2)
    assert found.largest_difference >= 1 and found.affected(0.5)


def test_a_failure_is_called_affected_whatever_the_actions():
    found = Disturbance(1, 1, 1, {}, ("busy: …",), 0.0, 1.0, 1.0)
    assert found.affected(1.0)


def test_an_answer_that_is_missing_or_no_number_is_called_affected():
    whole = Disturbance(1, 2, 2, {}, (), 0.0, 1.0, 1.0)
    assert not whole.affected(1.0)
    assert replace(whole, answers=1).affected(1.0) and replace(whole, largest_difference=float("nan")).affected(1.0)


def test_bad_clients_that_can_not_strike_prove_nothing(monkeypatch):
    monkeypatch.setattr(load_disturbance, "STRIKE_S", 0.1)
    monkeypatch.setitem(load_disturbance.ATTACKS, "wait", lambda *_: time.sleep(1))
    with running_server(PolicyServer(StandInPolicy())) as url, pytest.raises(PolicyError, match="no bad client could"):
        measure_disturbance(url, clients=1, requests=1)


def test_a_server_that_refuses_its_only_client_is_not_measured():
    server = PolicyServer(StandInPolicy(), token="token")
    with running_server(server) as url, pytest.raises(PolicyError, match="401"):
        measure_disturbance(url, clients=1, requests=1)
