"""Claims about the policy server, with real connections on this machine."""

import http.client
import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError, pack, unpack
from instructvla.evaluation.policy_server import PolicyServer, ServerLimits, bound_socket, running_server
from instructvla.evaluation.served_policy import ServedPolicy
from instructvla.nano import untrained_nano
from tests.stand_in_policy import FRAME, HORIZON, StandInPolicy, wait_until

SOON = 10.0


@contextmanager
def served(token=None, policy=None, **limits):
    policy = policy or StandInPolicy()
    server = PolicyServer(policy, ServerLimits(**{"grace_s": 5.0} | limits), token)
    try:
        with running_server(server) as url:
            yield policy, url
    finally:
        if isinstance(policy, StandInPolicy):
            policy.gate.set()


def raw(url, **options):
    """A connection that has read the metadata."""
    connection = connect(url, compression=None, max_size=None, proxy=None, close_timeout=0.5, **options).__enter__()
    connection.recv(timeout=SOON)
    return connection


def observation(seed=1, text="go", **options):
    return {"images": FRAME, "prompt": text, "seed": seed} | options


def health(url):
    address = urlsplit(url)
    link = http.client.HTTPConnection(address.hostname, address.port, timeout=SOON)
    try:
        link.request("GET", "/healthz")
        response = link.getresponse()
        assert response.getheader("Content-Type") == "application/json"
        return response.status, json.loads(response.read())
    finally:
        link.close()


@contextmanager
def asking(url, seed, text="go", **options):
    """A request under way in another thread; gives a list that the answer or the error will be in."""
    outcome = []

    def ask():
        try:
            with PolicyClient(url) as client:
                outcome.append(client.act(FRAME, text, seed=seed, **options).actions[0, 0])
        except PolicyError as error:
            outcome.append(error.code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(SOON)
        assert not thread.is_alive()


def test_the_first_message_is_the_metadata_and_an_observation_gets_its_answer():
    with served() as (policy, url), connect(url, proxy=None) as connection:
        assert unpack(connection.recv(timeout=SOON)) == policy.metadata
        for _ in range(2):
            connection.send(pack(observation(seed=5)))
            answer = unpack(connection.recv(timeout=SOON))
        assert answer["actions"].shape == (HORIZON, 7) and (answer["actions"] == 5).all()
        assert (answer["response"], answer["ignored"]) == ("words", [])
        assert answer["server_timing"].keys() == {"queue_ms", "infer_ms", "batch", "prev_total_ms"}


def test_the_openpi_client_works_unchanged():
    openpi = pytest.importorskip(
        "openpi_client.websocket_client_policy", reason="needs `pip install --no-deps openpi-client`"
    )
    policy = ServedPolicy(untrained_nano(seed=0), "nano", max_new_tokens=3)
    with served("key", policy) as (_, url):
        client = openpi.WebsocketClientPolicy("127.0.0.1", urlsplit(url).port, api_key="key")
        assert client.get_server_metadata()["model"] == "nano"
        flat = {"observation/image": np.zeros((224, 224, 3), np.uint8), "observation/state": np.zeros(8)}
        answer = client.infer(flat | {"prompt": "pick up the bowl"})
        assert answer["actions"].shape == (16, 7) and answer["ignored"] == ["observation/state"]
        with pytest.raises(RuntimeError, match="bad request"):
            client.infer({"prompt": "without a picture"})
        assert client.infer(flat | {"prompt": "go"})["actions"].dtype == np.float32
        client._ws.close()


def test_each_connection_has_its_own_context_until_a_reset_or_another_instruction():
    with served() as (policy, url), PolicyClient(url) as one, PolicyClient(url) as other:
        for client, text in ((one, "go"), (other, "go"), (one, "go"), (one, "stop"), (one, "stop")):
            client.act(FRAME, text)
        one.act(FRAME, "stop", reset=True)
        one.reset()
        one.act(FRAME, "stop")
        had_context = [batch[0].context is not None for batch in policy.batches]
    assert had_context == [False, False, True, False, True, False, False]


def test_a_latent_action_can_only_be_reused_where_there_is_one():
    with served() as (policy, url), PolicyClient(url) as client:
        with pytest.raises(PolicyError, match="bad request: reuse_latent needs an earlier answer"):
            client.act(FRAME, "go", reuse_latent=True)
        client.act(FRAME, "go")
        client.act(FRAME, "go", reuse_latent=True)
        assert policy.batches[-1][0].request.reuse_latent
        with pytest.raises(PolicyError, match="reuse_latent needs an earlier answer"):
            client.act(FRAME, "stop", reuse_latent=True)
        with pytest.raises(PolicyError, match="can't think"):
            client.act(FRAME, "stop", reuse_latent=True, think=True)


def test_clients_that_wait_at_the_same_time_share_a_batch_and_get_their_own_answers():
    with served() as (policy, url):
        policy.gate.clear()
        with asking(url, 1) as a:
            wait_until(lambda: policy.batches)
            with asking(url, 2) as b, asking(url, 3) as c, asking(url, 4, think=False) as d:
                wait_until(lambda: health(url)[1]["queue"] == 3)
                policy.gate.set()
        assert (a, b, c, d) == ([1], [2], [3], [4])
        assert sorted(map(len, policy.batches)) == [1, 1, 2]


def test_a_robot_that_acts_does_not_wait_for_the_words_of_another():
    with served() as (policy, url), PolicyClient(url) as other:
        policy.thoughts.clear()
        with asking(url, 1, think=True) as a:
            wait_until(lambda: policy.batches)
            assert other.act(FRAME, "go", seed=2).actions[0, 0] == 2 and not a
            policy.thoughts.set()
        assert a == [1]


def test_words_are_renewed_in_the_background_of_one_connection_alone():
    with served() as (policy, url), PolicyClient(url) as client:
        first = client.act(FRAME, "go", think="background")
        policy.thoughts.clear()
        assert client.act(FRAME, "go", think="background").response == first.response == "thought 1"
        policy.thoughts.set()
        wait_until(lambda: client.act(FRAME, "go").response == "thought 2")
        with PolicyClient(url) as leaving:
            leaving.act(FRAME, "go", think="background")
        assert client.act(FRAME, "go").response == "thought 2"


def test_a_client_that_leaves_in_mid_request_is_taken_out_of_the_queue():
    with served() as (policy, url):
        policy.gate.clear()
        with asking(url, 1) as a:
            wait_until(lambda: policy.batches)
            leaving = raw(url)
            leaving.send(pack(observation(seed=66)))
            wait_until(lambda: health(url)[1]["queue"] == 1)
            leaving.socket.shutdown(socket.SHUT_RDWR)
            wait_until(lambda: health(url)[1]["clients"] == 1)
            with asking(url, 2) as b:
                wait_until(lambda: health(url)[1]["clients"] == 2)
                policy.gate.set()
        assert (a, b) == ([1], [2])
        assert 66 not in [call.request.seed for batch in policy.batches for call in batch]


def test_a_request_that_fails_in_the_model_fails_alone_and_tells_no_secrets(caplog):
    with served() as (policy, url):
        policy.gate.clear()
        with asking(url, 1) as a:
            wait_until(lambda: policy.batches)
            with asking(url, 2) as b, asking(url, 3, "fail") as c, asking(url, 4, "break") as d:
                wait_until(lambda: health(url)[1]["queue"] == 3)
                policy.gate.set()
        assert (a, b, c, d) == ([1], [2], ["bad request"], ["internal error"])
        with PolicyClient(url) as client:
            with pytest.raises(PolicyError) as caught:
                client.act(FRAME, "break")
            assert "secret" not in str(caught.value) and "RuntimeError" in str(caught.value)
            assert client.act(FRAME, "go", seed=8).actions[0, 0] == 8
    assert "a secret of the server" in caplog.text


def test_garbage_is_answered_in_words_and_the_connection_stays_usable():
    with served() as (_, url), raw(url) as connection:
        for message in (b"", os.urandom(99), "a text", pack([1]), pack({"images": 1}), pack({"prompt": "x"})):
            connection.send(message)
            answer = connection.recv(timeout=SOON)
            assert isinstance(answer, str) and answer.startswith("bad request: ") and "\n" not in answer
        connection.send(pack(observation(seed=9)))
        assert unpack(connection.recv(timeout=SOON))["actions"][0, 0] == 9


def test_a_client_that_floods_loses_its_connection_and_its_place_and_others_are_served():
    with served() as (policy, url), PolicyClient(url) as other:
        policy.gate.clear()
        with asking(url, 1) as a:
            wait_until(lambda: policy.batches)
            flooding = raw(url)
            with pytest.raises(ConnectionClosed) as caught:  # maybe while it still sends
                for _ in range(20):
                    flooding.send(pack(observation(seed=66)))
                flooding.recv(timeout=SOON)
            assert caught.value.rcvd.code == 1008 and "after the answer" in caught.value.rcvd.reason
            policy.gate.set()
        assert a == [1] and other.act(FRAME, "go", seed=7).actions[0, 0] == 7
        assert 66 not in [call.request.seed for batch in policy.batches for call in batch]


def test_a_full_queue_is_busy_and_later_requests_are_served():
    with served(max_queue=1) as (policy, url):
        policy.gate.clear()
        with asking(url, 1) as a:
            wait_until(lambda: policy.batches)
            with asking(url, 2) as b:
                wait_until(lambda: health(url)[1]["queue"] == 1)
                with PolicyClient(url) as client:
                    with pytest.raises(PolicyError, match="busy: 1 requests are waiting"):
                        client.act(FRAME, "go")
                    policy.gate.set()
                    wait_until(lambda: len(policy.batches) == 2)
                    assert client.act(FRAME, "go", seed=3).actions[0, 0] == 3
        assert (a, b) == ([1], [2])


def test_a_request_without_an_answer_in_time_is_told_so_and_health_sees_the_cause():
    with served(deadline_s=0.3) as (policy, url):
        policy.gate.clear()
        with PolicyClient(url) as client:
            with pytest.raises(PolicyError, match="deadline: no answer within 0.3 s"):
                client.act(FRAME, "go")
            wait_until(lambda: health(url)[0] == 503)
            assert "exceeds the deadline" in health(url)[1]["status"]
            policy.gate.set()
            wait_until(lambda: health(url)[0] == 200)
            assert client.act(FRAME, "go", seed=2).actions[0, 0] == 2


def test_a_message_above_the_limit_closes_its_connection_only():
    with served(max_message_mb=0.01) as (_, url), PolicyClient(url) as other:
        big = raw(url)
        with pytest.raises(ConnectionClosed) as caught:
            big.send(bytes(20_000))
            big.recv(timeout=SOON)
        assert caught.value.rcvd.code == 1009
        assert other.act(FRAME, "go", seed=4).actions[0, 0] == 4


def test_a_connection_that_asks_nothing_is_closed_after_a_while():
    with served(idle_s=0.2) as (_, url), raw(url) as idle:
        with pytest.raises(ConnectionClosed) as caught:
            idle.recv(timeout=SOON)
        assert caught.value.rcvd.code == 1008
        wait_until(lambda: health(url)[1]["clients"] == 0)


def test_more_clients_than_allowed_are_refused_until_one_leaves():
    with served(max_clients=1) as (_, url):
        with PolicyClient(url), pytest.raises(PolicyError, match=r"refuses \(503\): busy: 1 clients"):
            PolicyClient(url)
        wait_until(lambda: health(url)[1]["clients"] == 0)
        PolicyClient(url).close()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", "Basic secret")],
        [("Authorization", "secret")],
        [("Authorization", "Bearer secret"), ("Authorization", "Bearer secret")],
    ],
)
def test_without_the_token_there_is_no_connection(headers):
    with served(token="secret") as (_, url):
        with pytest.raises(InvalidStatus) as caught:
            connect(url, additional_headers=headers, proxy=None).__enter__()
        assert caught.value.response.status_code == 401


def test_the_token_opens_as_bearer_and_as_openpi_sends_it_and_health_needs_none():
    with served(token="secret") as (_, url):
        PolicyClient(url, token="secret").close()
        raw(url, additional_headers={"Authorization": "Api-Key secret"}).close()
        assert health(url)[0] == 200


def test_web_pages_are_refused():
    with served() as (_, url), pytest.raises(InvalidStatus) as caught:
        connect(url, origin="https://example.org", proxy=None).__enter__()
    assert caught.value.response.status_code == 403


def test_noise_in_place_of_a_handshake_disturbs_nobody():
    with served() as (_, url), PolicyClient(url) as client:
        address = urlsplit(url)
        for noise in (os.urandom(300) + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b""):
            with socket.create_connection((address.hostname, address.port), timeout=SOON) as plain:
                plain.sendall(noise)
        assert client.act(FRAME, "go", seed=2).actions[0, 0] == 2


def test_health_names_model_revision_and_load():
    with served() as (_, url), PolicyClient(url):
        status, report = health(url)
    assert status == 200
    assert report == {
        "status": "ok",
        "model": "stand-in",
        "revision": "abc123",
        "queue": 0,
        "clients": 1,
        "running_s": 0.0,
    }


def test_a_stopping_server_answers_what_it_has_taken_and_refuses_the_rest():
    policy = StandInPolicy()
    policy.gate.clear()
    context = served(policy=policy)
    _, url = context.__enter__()
    idle = PolicyClient(url)
    with asking(url, 1) as a:
        wait_until(lambda: policy.batches)
        with asking(url, 2) as b:
            wait_until(lambda: health(url)[1]["queue"] == 1)
            stopping = threading.Thread(target=context.__exit__, args=(None, None, None), daemon=True)
            stopping.start()
            wait_until(lambda: health(url)[0] == 503)
            assert health(url)[1]["status"] == "shutting down"
            with pytest.raises(PolicyError, match="shutting down"):
                idle.act(FRAME, "go")
            with pytest.raises(PolicyError, match=r"503.*shutting down"):
                PolicyClient(url)
            policy.gate.set()
    assert (a, b) == ([1], [2])
    stopping.join(SOON)
    assert not stopping.is_alive()
    with pytest.raises(PolicyError, match="connection: .* closed it"):
        idle.act(FRAME, "go")


def test_a_stuck_model_does_not_keep_the_server_from_stopping():
    policy = StandInPolicy()
    with served(policy=policy, grace_s=0.2) as (_, url):
        policy.gate.clear()
        lost = raw(url)
        lost.send(pack(observation()))
        wait_until(lambda: policy.batches)
        began = time.monotonic()
    assert time.monotonic() - began < SOON
    with pytest.raises(ConnectionClosed):
        lost.recv(timeout=SOON)


def test_a_port_in_use_and_an_unknown_host_are_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"can't listen on 127.0.0.1:{port}: .*in use"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(ValueError, match="can't listen on no.such.host.invalid:1"):
        bound_socket("no.such.host.invalid", 1)


@pytest.mark.parametrize("name", ["max_batch", "max_queue", "deadline_s", "max_message_mb"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
        ServerLimits(**{name: 0})
