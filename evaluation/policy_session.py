"""One client's connection to a policy server: its context, and the way from a message to an answer."""

import asyncio
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from websockets.asyncio.server import ServerConnection

from instructvla.evaluation.policy_lanes import PolicyLanes
from instructvla.evaluation.policy_messages import PolicyError, unpack
from instructvla.evaluation.policy_observations import BACKGROUND, PolicyRequest
from instructvla.evaluation.request_batching import Answered
from instructvla.evaluation.served_policy import PolicyCall, ServedPolicy
from instructvla.generation_instructvla import ActionContext


class ImpatientClientError(Exception):
    """A client sends requests without waiting for answers; its connection is to be closed."""


class PolicySession:
    """One connection: its context, a thought in the background, and the way from a message to an answer."""

    def __init__(self, policy: ServedPolicy, lanes: PolicyLanes, deadline_s: float):
        self._policy, self._lanes, self._deadline_s = policy, lanes, deadline_s
        self._context: ActionContext | None = None
        self._thought: Future[Answered] | None = None
        self._previous_s: float | None = None

    async def answer(self, connection: ServerConnection, message: bytes | str) -> dict[str, Any]:
        """What to send for a message of this connection.

        Raises:
            ValueError, PolicyError: the request is refused, or a thought that an earlier one began has failed.
            ConnectionClosed: the client left meanwhile.
            ImpatientClientError: the client sent another message meanwhile.
        """
        began = time.monotonic()
        if isinstance(message, str):
            raise ValueError("a text frame is no observation; send msgpack in a binary frame, as openpi-client does")
        request = self._policy.reader.read(unpack(message))
        if request.reset or self._context is None or self._context.instruction != (request.instruction,):
            self._context = None
            self.close()
        if not request.images:
            return {"reset": True}
        self._check_reuse(request)
        if not request.reuse_latent:
            self._listen()
        call = PolicyCall(request, self._context)
        if self._policy.thinks(call):
            self.close()  # its words will be newer than those of a thought under way
        elif request.think == BACKGROUND and self._thought is None:
            self._thought = self._lanes.submit(replace(call, words_only=True), self._deadline_s)
        answered = await self._wait_for(connection, call)
        self._context = answered.result.context
        timing = {"queue_ms": 1000 * answered.queue_s, "infer_ms": 1000 * answered.run_s, "batch": answered.batch}
        if self._previous_s is not None:
            timing["prev_total_ms"] = 1000 * self._previous_s
        self._previous_s = time.monotonic() - began
        result = answered.result
        ignored = list(request.ignored)
        return {"actions": result.actions, "response": result.response, "server_timing": timing, "ignored": ignored}

    def close(self) -> None:
        """Drop a thought under way."""
        if self._thought is not None:
            self._thought.cancel()
            self._thought = None

    def _listen(self) -> None:
        """Take the words of a thought that has ended; what it failed with is raised, once."""
        if self._thought is None or not self._thought.done():
            return
        thought, self._thought = self._thought, None
        try:
            spoken = thought.result().result.context
        except PolicyError as error:
            raise PolicyError(error.code, f"the thought in the background failed: {error.reason}") from error
        except ValueError as error:
            raise ValueError(f"the thought in the background failed: {error}") from error
        self._context = replace(self._context, response=spoken.response, response_ids=spoken.response_ids)

    def _check_reuse(self, request: PolicyRequest) -> None:
        if not request.reuse_latent:
            return
        if request.think:
            raise ValueError("reuse_latent runs no language model, so it can't think; leave one of them out")
        if self._context is None:
            raise ValueError("reuse_latent needs an earlier answer to the same instruction on this connection")

    async def _wait_for(self, connection: ServerConnection, call: PolicyCall) -> Answered:
        """The answer; reads on meanwhile, as only a reader notices that its client has left or floods it."""
        future = asyncio.wrap_future(self._lanes.submit(call, self._deadline_s))
        reading = asyncio.ensure_future(connection.recv())
        try:
            await asyncio.wait({future, reading}, timeout=self._deadline_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered = future.done()
            future.cancel()  # takes it out of the queue; nothing to an answered one
            reading.cancel()
            await asyncio.wait({reading})
        if not reading.cancelled():
            reading.result()  # raises ConnectionClosed if the client has left
            raise ImpatientClientError("send the next request after the answer to the last one")
        if answered:
            return future.result()
        raise PolicyError("deadline", f"no answer within {self._deadline_s:g} s; the request is dropped")
