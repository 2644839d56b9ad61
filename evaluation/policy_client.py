"""A robot's side of the policy server; needs numpy, msgpack and websockets, but neither torch nor transformers.

with PolicyClient("ws://127.0.0.1:8000") as client:
    answer = client.act({"primary": frame}, "put the spoon on the towel")
    answer.actions  # (horizon, action_dim), client.metadata["action_units"]
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from instructvla.evaluation.policy_messages import PolicyError, pack, unpack

MAX_ANSWER_BYTES = 16 * 2**20
RETRY_EVERY_S = 0.5
CLOSING_S = 3


@dataclass(frozen=True)
class PolicyAnswer:
    """What the policy says and does.

    Args:
        actions: `(horizon, action_dim)` float32, in the units of the metadata's `action_units`.
        response: what the model said, None if it acted without words.
        timing: the server's `queue_ms`, `infer_ms` and `batch`, and this client's `total_ms`.
    """

    actions: np.ndarray
    response: str | None
    timing: dict[str, float]


class PolicyClient:
    """One connection, so one robot: the server keeps its response and latent action until `reset`.

    Args:
        url: `ws://HOST:PORT`, as `instructvla serve` prints it.
        token: the server's, if it wants one.
        connect_s: longest time for the connection, in seconds; a server that is not up yet is tried again until then.
        answer_s: longest time for an answer, and before that for the sending of an observation.

    Attributes:
        metadata: the model's name, cameras, statistics' keys, action names and units, control rates.

    Raises:
        PolicyError: "connection" if there is no such server, or it refuses this client.
    """

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8000",
        token: str | None = None,
        connect_s: float = 10.0,
        answer_s: float = 60.0,
    ):
        self.url, self.answer_s = url, answer_s
        self._connection = _connected(url, token, connect_s)
        self._connection.socket.settimeout(answer_s)  # of what is sent; websockets has a deadline for receiving alone
        try:
            self.metadata: dict[str, Any] = self._received(connect_s)
        except (PolicyError, ValueError):
            self.close()
            raise

    def act(
        self,
        images: Mapping[str, np.ndarray] | np.ndarray,
        instruction: str,
        state: np.ndarray | None = None,
        unnorm_key: str | None = None,
        think: bool | str | None = None,
        reuse_latent: bool = False,
        reset: bool = False,
        seed: int | None = None,
        previous_actions: np.ndarray | None = None,
        delay: int = 0,
    ) -> PolicyAnswer:
        """An action chunk for what the robot sees; the arguments mean what they do for `generate_action`.

        Args:
            images: `(height, width, 3)` uint8 for each of `metadata["cameras"]`; one array if there is one camera.
            instruction: what to do; another one than before starts afresh.
            state: `(state_dim,)`, physical units, if the model takes one.
            unnorm_key: whose statistics to use; may be left out when the checkpoint has one set.
            think: True speaks anew, False does not; "background" acts on the last words now, and speaks anew about
                these pictures for later answers; default: as trained, and once per instruction.
            reuse_latent: only run the action expert, on the latent action of the earlier answer.
            reset: forget the earlier answers first.
            seed: of the flow's initial noise.
            previous_actions: `(k, action_dim)`, what the last chunk still has to give; the new one goes on from there.
            delay: how many of these will have been executed when the answer is there.

        Raises:
            PolicyError: the server's refusal, with its `code`; after "deadline" or "connection" from this client the
                connection is closed.
        """
        given = {"images": images, "prompt": instruction, "state": state, "unnorm_key": unnorm_key, "think": think}
        given |= {"reuse_latent": reuse_latent or None, "reset": reset or None, "seed": seed}
        given |= {"previous_actions": previous_actions, "delay": delay or None}
        began = time.perf_counter()
        answer = self.infer({key: value for key, value in given.items() if value is not None})
        timing = answer.get("server_timing", {}) | {"total_ms": 1000 * (time.perf_counter() - began)}
        return PolicyAnswer(answer["actions"], answer.get("response"), timing)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The server's whole answer to an observation, as openpi-client's `infer`.

        Raises:
            PolicyError: as `act`.
        """
        try:
            self._connection.send(pack(dict(observation)))
        except ConnectionClosed as error:
            if isinstance(error.__cause__, TimeoutError):
                message = f"{self.url} did not take the observation within {self.answer_s:g} s"
                raise PolicyError("deadline", message) from error
            raise PolicyError("connection", f"{self.url} closed it: {error}") from error
        return self._received(self.answer_s)

    def reset(self) -> None:
        """Forget response and latent action: call it when an episode starts."""
        self.infer({"reset": True})

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "PolicyClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _received(self, within_s: float) -> dict[str, Any]:
        try:
            message = self._connection.recv(timeout=within_s)
        except TimeoutError as error:
            self.close()  # a late answer would be taken for that of the next request
            raise PolicyError("deadline", f"no answer from {self.url} within {within_s:g} s") from error
        except ConnectionClosed as error:
            raise PolicyError("connection", f"{self.url} closed it: {error}") from error
        if isinstance(message, str):
            raise PolicyError.from_frame(message)
        return unpack(message)


def _connected(url: str, token: str | None, within_s: float) -> ClientConnection:
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    give_up = time.monotonic() + within_s
    while True:
        try:
            return connect(
                url,
                additional_headers=headers,
                open_timeout=max(0.1, give_up - time.monotonic()),
                close_timeout=CLOSING_S,
                max_size=MAX_ANSWER_BYTES,
                compression=None,
                proxy=None,
            ).__enter__()  # websockets wants it used as a context manager, whose end is close()
        except InvalidURI as error:
            raise PolicyError("connection", f"{url!r} is no address; give ws://HOST:PORT") from error
        except InvalidStatus as error:
            body = (error.response.body or b"").decode(errors="replace").strip()[:200]
            raise PolicyError("connection", f"{url} refuses ({error.response.status_code}): {body}") from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            if time.monotonic() + RETRY_EVERY_S > give_up:
                raise PolicyError(
                    "connection",
                    f"no policy server answers at {url} ({error}); start one with `instructvla serve MODEL`",
                ) from error
            time.sleep(RETRY_EVERY_S)
