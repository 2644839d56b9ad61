"""Claims about one connection's way from a message to an answer; see test_policy_server for whole connections."""

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from instructvla.evaluation.policy_lanes import PolicyLanes
from instructvla.evaluation.policy_messages import PolicyError, pack
from instructvla.evaluation.policy_session import ImpatientClientError, PolicySession
from tests.stand_in_policy import FRAME, StandInPolicy, wait_until


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
    """Runs `conversation(session, connection, policy)` with a session of its own; `session.beside` is another's."""
    policy = StandInPolicy()
    lanes = PolicyLanes(policy, 4, 0.0, 4, lambda: 1)

    async def run():
        session = PolicySession(policy, lanes, deadline_s)
        session.beside = PolicySession(policy, lanes, deadline_s)
        return await conversation(session, Connection(), policy)

    try:
        return asyncio.run(run())
    finally:
        policy.gate.set()
        policy.thoughts.set()
        lanes.close(10)


def message(**changes):
    return pack({"images": FRAME, "prompt": "go", "seed": 2} | changes)


async def said(session, connection, **changes):
    return (await session.answer(connection, message(**changes)))["response"]


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


def test_a_thought_in_the_background_keeps_no_action_waiting_and_its_words_come_with_the_first_answer_after_it():
    async def conversation(session, connection, policy):
        words = [await said(session, connection, think="background")]  # there are none yet: they come first
        policy.thoughts.clear()
        words += [await said(session, connection, think="background") for _ in range(3)]
        policy.thoughts.set()
        thought = session._thought
        wait_until(thought.done)
        words.append(await said(session, connection, think=None))
        return words, [batch[0].words_only for batch in policy.batches if policy.thinks(batch[0])]

    words, thoughts = talk(conversation)
    assert words == ["thought 1"] * 4 + ["thought 2"]
    assert thoughts == [False, True]  # one thought at a time


def test_words_of_the_background_wait_for_an_answer_that_is_made_from_them():
    async def conversation(session, connection, policy):
        await said(session, connection, think=True)
        await said(session, connection, think="background")
        wait_until(session._thought.done)
        return [await said(session, connection, reuse_latent=True), await said(session, connection)]

    assert talk(conversation) == ["thought 1", "thought 2"]


@pytest.mark.parametrize("failure", [ValueError("the picture is broken"), PolicyError("deadline", "too late")])
def test_a_failed_thought_is_told_once_to_its_client_alone(failure):
    async def conversation(session, connection, policy):
        for one in (session, session.beside):
            await said(one, connection, think=True)
        policy.failure = failure
        await said(session, connection, think="background")
        wait_until(session._thought.done)
        others = await said(session.beside, connection)
        reason = "the thought in the background failed: (the picture is broken|too late)"
        with pytest.raises(type(failure), match=reason):
            await said(session, connection)
        return [others, await said(session, connection)]

    assert talk(conversation) == ["thought 2", "thought 1"]


@pytest.mark.parametrize("change", [{"reset": True}, {"prompt": "stop"}, {"think": True}])
def test_a_thought_is_dropped_by_a_reset_another_instruction_and_newer_words(change):
    async def conversation(session, connection, policy):
        await said(session, connection, think=True)
        await said(session, connection, think="background")
        first = session._thought
        wait_until(first.done)
        await said(session, connection, **({"think": False} | change))
        assert session._thought is None
        kept = {name: value for name, value in change.items() if name == "prompt"}
        return await said(session, connection, **kept)

    assert talk(conversation) == {"reset": "words", "prompt": "words", "think": "thought 3"}[next(iter(change))]


def test_a_client_that_leaves_takes_its_waiting_thought_along():
    async def conversation(session, connection, policy):
        for one in (session, session.beside):
            await said(one, connection, think=True)
        policy.thoughts.clear()
        for one in (session, session.beside):
            await said(one, connection, think="background")
            wait_until(lambda: any(batch[0].words_only for batch in policy.batches))
        waiting = session.beside._thought
        session.beside.close()
        return waiting.cancelled()

    assert talk(conversation)
