"""Whether a policy server's good clients notice bad ones, which leave in mid-request, flood it, or send garbage."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from instructvla.evaluation.load_measurement import example_observation, reason_of
from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError, pack, unpack

WAIT_S = 5.0
STRIKE_S = 60.0  # in which each bad client strikes for the first time
PAUSE_S = 0.02
FLOOD = 50  # requests sent without reading an answer
OVERSIZE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Disturbance:
    """What good clients got while others misbehaved, beside what they got alone.

    Args:
        clients, asked, answers: good clients, their requests, and how many were answered in both runs.
        attacks: how many times each kind of bad client struck.
        failures: refusals and lost connections of good clients.
        largest_difference: of an action under attack from the same request's action alone, in the action's units.
        p99_alone_ms, p99_disturbed_ms: latencies of the good clients.
    """

    clients: int
    asked: int
    answers: int
    attacks: dict[str, int]
    failures: tuple[str, ...]
    largest_difference: float
    p99_alone_ms: float
    p99_disturbed_ms: float

    def affected(self, tolerance: float) -> bool:
        """Whether a good client noticed: an answer failed or is missing, or differs by more than the tolerance."""
        unanswered = bool(self.failures) or self.answers < self.asked
        return unanswered or not self.largest_difference <= tolerance

    def row(self) -> dict[str, Any]:
        return asdict(self)


def measure_disturbance(url: str, clients: int, requests: int, token: str | None = None) -> Disturbance:
    """The same seeded requests twice, the second time beside bad clients of every kind.

    Args:
        url: of the server.
        clients: good clients at once.
        requests: of each good client, each with its own picture and seed.

    Raises:
        PolicyError: the server can't be reached, or refuses a good client while it is alone; a bad one can't strike.
    """
    alone = _good_clients(url, clients, requests, token)
    if alone.failures:
        raise PolicyError.from_frame(alone.failures[0])
    with ExitStack() as bad:
        attackers = [_Attacker(name, attack, url, token) for name, attack in ATTACKS.items()]
        for attacker in attackers:
            attacker.start()
            bad.callback(attacker.end)
        _wait_until(lambda: all(attacker.strikes for attacker in attackers))
        if idle := [attacker.name for attacker in attackers if not attacker.strikes]:
            raise PolicyError("deadline", f"within {STRIKE_S:g} s no bad client could {idle[0]}; try again")
        disturbed = _good_clients(url, clients, requests, token)
    both = alone.actions.keys() & disturbed.actions.keys()
    differences = [abs(alone.actions[at] - disturbed.actions[at]).max() for at in both]
    return Disturbance(
        clients=clients,
        asked=clients * requests,
        answers=len(both),
        attacks={attacker.name: attacker.strikes for attacker in attackers},
        failures=tuple(disturbed.failures),
        largest_difference=float(np.max(differences)) if differences else float("nan"),
        p99_alone_ms=float(np.percentile(alone.latencies, 99)),
        p99_disturbed_ms=float(np.percentile(disturbed.latencies or [np.nan], 99)),
    )


class _Answers:
    """What good clients got: actions by client and request, latencies (ms), failures."""

    def __init__(self) -> None:
        self.actions: dict[tuple[int, int], np.ndarray] = {}
        self.latencies: list[float] = []
        self.failures: list[str] = []


def _good_clients(url: str, clients: int, requests: int, token: str | None) -> _Answers:
    answers = _Answers()

    def ask(number: int) -> None:
        try:
            with PolicyClient(url, token) as client:
                for request in range(requests):
                    observation = example_observation(client.metadata, seed=1000 * number + request)
                    began = time.perf_counter()
                    answers.actions[number, request] = client.infer(observation)["actions"]
                    answers.latencies.append(1000 * (time.perf_counter() - began))
        except Exception as error:  # any that ends this thread is a client that got no answer
            answers.failures.append(reason_of(error))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class _Attacker(threading.Thread):
    """Strikes again and again until it is ended; what happens to itself does not matter."""

    def __init__(self, name: str, attack: Callable[[str, str | None], None], url: str, token: str | None):
        super().__init__(daemon=True)
        self.name, self.attack, self.url, self.token = name, attack, url, token
        self.strikes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError, EOFError, WebSocketException):
                self.attack(self.url, self.token)
            self.strikes += 1
            self._ended.wait(PAUSE_S)

    def end(self) -> None:
        self._ended.set()
        self.join(2 * WAIT_S)


def leave_in_mid_request(url: str, token: str | None) -> None:
    """Sends a request and is gone, without a closing handshake, before the answer."""
    connection, metadata = _raw_connection(url, token)
    connection.send(pack(example_observation(metadata, seed=1)))
    _hang_up(connection)


def leave_in_mid_message(url: str, token: str | None) -> None:
    """Half of a frame, then nothing."""
    connection, _ = _raw_connection(url, token)
    connection.socket.sendall(b"\x82\xfe\xff\xff\x00\x00\x00\x00" + b"half of it")
    _hang_up(connection)


def send_garbage(url: str, token: str | None) -> None:
    """Frames that are no observation: noise, text, a pickle, and requests that the model refuses."""
    connection, _ = _raw_connection(url, token)
    for message in (os.urandom(2000), "text", b"\x80\x04\x95.", pack({"prompt": 3}), pack([[]] * 3), b""):
        connection.send(message)
        connection.recv(timeout=WAIT_S)
    _hang_up(connection)


def send_too_much(url: str, token: str | None) -> None:
    """A message of 64 MiB."""
    connection, _ = _raw_connection(url, token)
    connection.send(bytes(OVERSIZE_BYTES))


def flood(url: str, token: str | None) -> None:
    """Many requests, of which no answer is read."""
    connection, metadata = _raw_connection(url, token)
    message = pack(example_observation(metadata, seed=2))
    with suppress(TimeoutError):
        connection.socket.settimeout(1.0)
        for _ in range(FLOOD):
            connection.send(message)
    _hang_up(connection)


def speak_no_websocket(url: str, token: str | None) -> None:
    """Noise in place of the opening handshake."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=WAIT_S) as plain:
        plain.sendall(os.urandom(500) + b"\r\n\r\n")
        plain.recv(100)


ATTACKS: dict[str, Callable[[str, str | None], None]] = {
    attack.__name__.replace("_", " "): attack
    for attack in (leave_in_mid_request, leave_in_mid_message, send_garbage, send_too_much, flood, speak_no_websocket)
}


def _raw_connection(url: str, token: str | None) -> tuple[ClientConnection, dict[str, Any]]:
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    connection = connect(
        url, additional_headers=headers, compression=None, proxy=None, open_timeout=WAIT_S, close_timeout=0.1
    ).__enter__()
    return connection, unpack(connection.recv(timeout=WAIT_S))


def _hang_up(connection: ClientConnection) -> None:
    """The TCP connection is gone, as if the robot's computer had lost power and another took its address."""
    with suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)
    connection.close()


def _wait_until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + STRIKE_S
    while not true() and time.monotonic() < give_up:
        time.sleep(PAUSE_S)
