"""Claims about one connection's way from a message to an answer; see test_policy_server for whole connections."""

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from instructvla.evaluation.policy_messages import PolicyError, pack
from instructvla.evaluation.policy_session import ImpatientClientError, PolicySession
from instructvla.evaluation.request_batching import RequestBatcher
from tests.stand_in_policy import FRAME, StandInPolicy


class Connection:
    """As much of a WebSocket connection as a session uses."""

    def __init__(self):
        self.messages = asyncio.Queue()

    async def recv(self):
        message = await self.messages.get()
        if message is None:
            raise ConnectionClosedError(None, None)
        return message


def talk(conversation, deadline_s=10.0):
    """Runs `conversation(session, connection, policy)` with a session of its own."""
    policy = StandInPolicy()
    batcher = RequestBatcher(policy.act, 4, 0.0, 4, lambda: 1)

    async def run():
        return await conversation(PolicySession(policy, batcher, deadline_s), Connection(), policy)

    try:
        return asyncio.run(run())
    finally:
        policy.gate.set()
        batcher.close(10)


def message(**changes):
    return pack({"images": FRAME, "prompt": "go", "seed": 2} | changes)


def test_an_answer_has_actions_words_timing_and_what_was_ignored():
    async def conversation(session, connection, policy):
        return await session.answer(connection, message(**{"observation/joint_position": 1}))

    answer = talk(conversation)
    assert answer["actions"][0, 0] == 2 and answer["response"] == "words"
    assert answer["ignored"] == ["observation/joint_position"] and answer["server_timing"]["batch"] == 1


def test_a_refused_request_keeps_the_context():
    async def conversation(session, connection, policy):
        await session.answer(connection, message())
        for bad in (b"\xc1", "text", message(seed=-1)):
            with pytest.raises(ValueError):
                await session.answer(connection, bad)
        await session.answer(connection, message())
        return policy.batches[-1][0].context

    assert talk(conversation) is not None


def test_the_wait_ends_when_the_client_leaves():
    async def conversation(session, connection, policy):
        policy.gate.clear()
        asyncio.get_running_loop().call_later(0.05, connection.messages.put_nowait, None)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(session.answer(connection, message()), 5)

    talk(conversation)


def test_a_message_before_the_answer_ends_the_wait_and_takes_the_request_out_of_the_queue():
    async def conversation(session, connection, policy):
        policy.gate.clear()
        asyncio.get_running_loop().call_later(0.05, connection.messages.put_nowait, b"more")
        with pytest.raises(ImpatientClientError, match="after the answer"):
            await asyncio.wait_for(session.answer(connection, message()), 5)

    talk(conversation)


def test_the_wait_ends_at_the_deadline():
    async def conversation(session, connection, policy):
        policy.gate.clear()
        with pytest.raises(PolicyError, match="deadline"):
            await asyncio.wait_for(session.answer(connection, message()), 5)

    talk(conversation, deadline_s=0.05)
