"""A policy over WebSocket, in openpi-client's protocol: metadata at connection, then an answer to each observation.

An answer is a map with `actions` `(horizon, action_dim)` float32, `response`, `server_timing` and `ignored`, or, where
a request is refused, a text frame "code: reason" (see `PolicyError`); the connection stays open. Each connection has
one context, so one robot: its response and latent action can be reused until a reset or another instruction. A client
sends its next request after the answer to the last. Every wait has a limit, and what one client does wrong is answered
to that client alone.
"""

import asyncio
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from instructvla.evaluation.policy_lanes import PolicyLanes
from instructvla.evaluation.policy_messages import PolicyError, pack
from instructvla.evaluation.policy_session import ImpatientClientError, PolicySession
from instructvla.evaluation.served_policy import ServedPolicy

HEALTH_PATH = "/healthz"
OPENING_S = 10  # for the opening handshake
SENDING_S = 20  # for a client to take its answer
CLOSING_S = 3
PING_EVERY_S, PING_ANSWER_S = 20, 60  # a peer that is gone without a word is noticed by then

logger = logging.getLogger(__name__)
handshake_logger = logging.getLogger(f"{__name__}.handshakes")
handshake_logger.setLevel(logging.CRITICAL)  # a port scan is no traceback


@dataclass(frozen=True)
class ServerLimits:
    """What a server grants its clients.

    Args:
        max_message_mb: largest observation, in MiB; a larger one closes its connection (code 1009).
        max_clients: most connections; more are refused with HTTP status 503.
        max_queue: most requests that wait to act, and most that wait to think; more are refused as "busy".
        max_batch: most requests answered together.
        max_wait_ms: how long a request waits for others to share its batch.
        deadline_s: longest time from a request to its answer.
        idle_s: a connection without a request for so long is closed.
        grace_s: longest time for running requests when the server stops.
    """

    max_message_mb: float = 32.0
    max_clients: int = 64
    max_queue: int = 32
    max_batch: int = 8
    max_wait_ms: float = 5.0
    deadline_s: float = 30.0
    idle_s: float = 3600.0
    grace_s: float = 30.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0 and not (name == "max_wait_ms" and value == 0):
                raise ValueError(f"{name} must be above 0, got {value}")


class PolicyServer:
    """Serves one model.

    Args:
        policy: the model.
        limits: what clients are granted.
        token: needed from clients as `Authorization: Bearer TOKEN`, or `Api-Key TOKEN` as openpi-client sends it.
    """

    def __init__(self, policy: ServedPolicy, limits: ServerLimits | None = None, token: str | None = None):
        self.policy, self.limits, self._token = policy, limits or ServerLimits(), token
        self._clients = self._in_flight = 0
        self._stopping = False
        self._lanes: PolicyLanes | None = None

    async def run(self, sock: socket.socket, stop: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Serve on a bound socket until `stop` is set; then answer what runs or waits, refuse the rest, and close."""
        limits = self.limits
        self._lanes = PolicyLanes(
            self.policy, limits.max_batch, limits.max_wait_ms / 1000, limits.max_queue, lambda: self._clients
        )
        try:
            async with serve(
                self._serve_client,
                sock=sock,
                origins=[None],  # web pages send an origin; no page shall reach a robot through its visitor's browser
                process_request=self._before_handshake,
                compression=None,  # frames are noise to it, and a small message can't unpack to a huge one
                max_size=int(limits.max_message_mb * 2**20),
                max_queue=1,  # a flood waits in its sender's memory
                open_timeout=OPENING_S,
                close_timeout=CLOSING_S,
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_ANSWER_S,
                logger=handshake_logger,
                server_header="instructvla",
            ):
                on_ready()
                await stop.wait()
                self._stopping = True
                await self._drained()
        finally:
            await asyncio.to_thread(self._lanes.close, 1.0)

    def health(self) -> tuple[HTTPStatus, dict[str, Any]]:
        """What `GET /healthz` answers: 200 while requests are taken and answered, else 503."""
        running_s = self._lanes.running_s()
        status = "ok"
        if not self._lanes.alive:
            status = "a thread of the model has ended"
        elif running_s > self.limits.deadline_s:
            status = "the model's call exceeds the deadline"
        if self._stopping:
            status = "shutting down"
        return HTTPStatus.OK if status == "ok" else HTTPStatus.SERVICE_UNAVAILABLE, {
            "status": status,
            "model": self.policy.name,
            "revision": self.policy.revision,
            "queue": self._lanes.waiting,
            "clients": self._clients,
            "running_s": round(running_s, 3),
        }

    def _before_handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.partition("?")[0] == HEALTH_PATH:
            status, report = self.health()
            response = connection.respond(status, json.dumps(report) + "\n")
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "application/json"
            return response
        if not self._authorized(request.headers.get_all("Authorization")):
            response = connection.respond(HTTPStatus.UNAUTHORIZED, "this server needs a token\n")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if self._stopping or self._clients >= self.limits.max_clients:
            why = "shutting down" if self._stopping else f"busy: {self._clients} clients are connected"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n")
        return None

    def _authorized(self, headers: list[str]) -> bool:
        if self._token is None:
            return True
        scheme, _, given = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        same = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self._token.encode())
        return scheme.lower() in ("bearer", "api-key") and same

    async def _serve_client(self, connection: ServerConnection) -> None:
        self._clients += 1
        session = PolicySession(self.policy, self._lanes, self.limits.deadline_s)
        try:
            await _send(connection, pack(self.policy.metadata))
            while True:
                async with asyncio.timeout(self.limits.idle_s):
                    message = await connection.recv()
                await self._answer(connection, session, message)
        except ConnectionClosed:
            pass
        except TimeoutError:
            await connection.close(1008, "no request, or no reading of answers, for too long")
        except ImpatientClientError as error:
            await connection.close(1008, str(error))
        finally:
            session.close()
            self._clients -= 1

    async def _answer(self, connection: ServerConnection, session: PolicySession, message: bytes | str) -> None:
        self._in_flight += 1
        try:
            await _send(connection, await self._answer_or_refusal(connection, session, message))
        finally:
            self._in_flight -= 1

    async def _answer_or_refusal(
        self, connection: ServerConnection, session: PolicySession, message: bytes | str
    ) -> bytes | str:
        try:
            if self._stopping:
                raise PolicyError("shutting down", "the server takes no more requests; connect to another one")
            return pack(await session.answer(connection, message))
        except (ConnectionClosed, ImpatientClientError):
            raise
        except PolicyError as error:
            return str(error)
        except ValueError as error:
            return str(PolicyError("bad request", " ".join(str(error).split())))
        except Exception as error:  # the model's: its client is told, and the others are served
            logger.exception("a request failed")
            return str(PolicyError("internal error", f"{type(error).__name__}; the server's log has the details"))

    async def _drained(self) -> None:
        give_up = time.monotonic() + self.limits.grace_s
        while self._in_flight and time.monotonic() < give_up:
            await asyncio.sleep(0.01)


async def _send(connection: ServerConnection, message: bytes | str) -> None:
    async with asyncio.timeout(SENDING_S):
        await connection.send(message)


def bound_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that takes no connections before the server runs; port 0 takes any free one.

    Raises:
        ValueError: the address can't be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, OverflowError) as error:
        raise ValueError(f"can't listen on {host}:{port}: {error}. Give another --host or --port") from error
    return sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


@contextmanager
def running_server(server: PolicyServer, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The server in a thread of this process, for as long as the block runs; gives its URL.

    Raises:
        ValueError: the address can't be used.
    """
    sock = bound_socket(host, port)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(sock, stop, ready.set)), daemon=True)
    thread.start()
    try:
        if not ready.wait(OPENING_S):
            raise RuntimeError("the policy server did not start; its thread's error is on stderr")
        yield url_of(sock)
    finally:
        with suppress(RuntimeError):  # a loop that has ended
            loop.call_soon_threadsafe(stop.set)
        thread.join(server.limits.grace_s + 2 * CLOSING_S)
        if not thread.is_alive():
            loop.close()
