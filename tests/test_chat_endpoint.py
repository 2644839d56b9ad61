"""Claims about `ChatEndpoint`, against a local server that fails, delays, truncates and lies."""

import asyncio

import pytest

from instructvla.training.annotation.chat_endpoint import ChatEndpoint, EndpointError, FailedRequestError
from tests.chat_server import MODEL, Behaviour, ChatServer

MESSAGES = [{"role": "user", "content": "What is on the table?"}]
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def ask(server, times=1, schema=None, **settings):
    """The replies to `times` questions that are asked at once."""

    async def run():
        endpoint = ChatEndpoint(server.url, MODEL, **settings)
        try:
            return await asyncio.gather(*(endpoint.ask(MESSAGES, schema) for _ in range(times)))
        finally:
            await endpoint.close()

    return asyncio.run(run())


def in_turn(*behaviours):
    """The last one again and again once the others are used up."""
    return lambda body, number: behaviours[min(number, len(behaviours) - 1)]


def reply_to(behaviour, **settings):
    with ChatServer(in_turn(behaviour)) as server:
        return ask(server, **settings)[0]


def test_a_reply_has_the_words_and_what_they_cost():
    with ChatServer(in_turn("A spoon.")) as server:
        reply = ask(server, parameters={"temperature": 0.5})[0]
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.model) == ("A spoon.", 1000, 100, MODEL)
    assert reply.problem is None
    assert server.requests == [{"model": MODEL, "messages": MESSAGES, "temperature": 0.5}]


@pytest.mark.parametrize(
    "failure",
    [
        Behaviour(status=500),
        Behaviour(status=503, body=b"<html>busy</html>"),
        Behaviour(status=429, headers={"Retry-After-Ms": "20"}),
        Behaviour(reset=True),
        Behaviour("late", cut=40),
        Behaviour("late", delay_s=3),
    ],
    ids=["500", "503 in HTML", "429", "reset", "cut off", "too slow"],
)
def test_a_failed_request_is_repeated(failure):
    with ChatServer(in_turn(failure, "A spoon.")) as server:
        assert ask(server, timeout_s=1)[0].text == "A spoon."
    assert len(server.requests) == 2


def test_retry_after_is_waited_for():
    with ChatServer(in_turn(Behaviour(status=429, headers={"Retry-After": "2"}), "A spoon.")) as server:
        ask(server)
    assert server.times[1] - server.times[0] >= 2


def test_a_request_that_fails_again_and_again_is_given_up():
    told = pytest.raises(FailedRequestError, match=r"refused the request: .*500.*out of order")
    with ChatServer(in_turn(Behaviour("out of order", status=500))) as server, told:
        ask(server, retries=1)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "Set MY_KEY to a valid one"), (403, "Use another key"), (404, "Check --endpoint")]
)
def test_what_no_repetition_can_mend_is_told_at_once(monkeypatch, status, remedy):
    monkeypatch.setenv("MY_KEY", "wrong")
    with ChatServer(in_turn(Behaviour("no", status=status))) as server, pytest.raises(EndpointError, match=remedy):
        ask(server, key_variable="MY_KEY")
    assert server.authorization == ["Bearer wrong"]


def test_no_server_is_told_with_the_remedy():
    with ChatServer(in_turn("")) as server:
        pass
    with pytest.raises(FailedRequestError, match=r"can't be reached \(.*\)\. Check --endpoint"):
        ask(server, retries=0)


def test_a_hosted_endpoint_needs_a_key_and_an_address_a_scheme(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointError, match="needs a key: set OPENAI_API_KEY"):
        ChatEndpoint("https://api.example.com/v1", MODEL)
    with pytest.raises(EndpointError, match="localhost:8000 is no address; give one such as"):
        ChatEndpoint("localhost:8000", MODEL)


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (Behaviour(""), "the answer is empty"),
        (Behaviour(None), "the answer is empty"),
        (Behaviour(None, refusal="I can't help with that."), "the model refused: I can't help with that."),
        (Behaviour("A spo", finish_reason="length"), "the answer was cut off at the token limit"),
        (Behaviour("A spo", finish_reason="content_filter"), "the provider's content filter stopped the answer"),
        (Behaviour(body=b'{"object": "error"}'), "the endpoint's answer is no chat completion"),
        (Behaviour(body=b'{"choices": []}'), "the endpoint's answer is no chat completion"),
        (Behaviour(body=b"[1, 2]"), "the endpoint's answer is no chat completion"),
        (Behaviour(body=b"<html>hello</html>"), "the endpoint's answer is no JSON"),
    ],
)
def test_an_answer_that_is_none_says_why(behaviour, problem):
    assert problem in reply_to(behaviour).problem


def test_an_endpoint_without_usage_is_no_error():
    reply = reply_to(Behaviour("A spoon.", usage=None))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("A spoon.", 0, 0)


def test_a_schema_is_sent_and_left_out_for_good_where_it_is_refused():
    def refuses(body, number):
        return Behaviour("unknown field", status=400) if "response_format" in body else "A spoon."

    async def run(server):
        endpoint = ChatEndpoint(server.url, MODEL)
        texts = [(await endpoint.ask(MESSAGES, SCHEMA)).text for _ in range(3)]
        await endpoint.close()
        return texts, endpoint.takes_schema

    with ChatServer(refuses) as server:
        assert asyncio.run(run(server)) == (["A spoon."] * 3, False)
        assert ["response_format" in body for body in server.requests] == [True, False, False, False]
    with ChatServer(in_turn("A spoon.")) as server:
        assert asyncio.run(run(server)) == (["A spoon."] * 3, True)
    sent = server.requests[0]["response_format"]["json_schema"]
    assert sent == {"name": "answer", "strict": True, "schema": SCHEMA}


def test_a_refusal_that_the_schema_is_not_to_blame_for_stays_one():
    told = pytest.raises(FailedRequestError, match="the picture is too large")
    with ChatServer(in_turn(Behaviour("the picture is too large", status=400))) as server, told:
        ask(server, schema=SCHEMA)


def test_requests_keep_their_distance_repetitions_included():
    with ChatServer(in_turn(Behaviour(status=500), "A spoon.")) as server:
        ask(server, times=3, requests_per_minute=240)
    assert len(server.times) == 4
    assert server.times[-1] - server.times[0] > 0.6  # three quarters of a second, but for what the threads are late


def test_tokens_per_minute_hold_requests_back():
    long = [{"role": "user", "content": "x" * 2380}]  # 599 tokens by the estimate, of 600 at the start

    async def run(server):
        endpoint = ChatEndpoint(server.url, MODEL, tokens_per_minute=600)
        await asyncio.gather(endpoint.ask(long), endpoint.ask(MESSAGES))
        await endpoint.close()

    with ChatServer(in_turn("A spoon.")) as server:
        asyncio.run(run(server))
        with pytest.raises(EndpointError, match="--tokens-per-minute is 0, but must be above 0"):
            ask(server, tokens_per_minute=0)
    assert server.times[1] - server.times[0] > 0.6  # 9 tokens, at 10 a second
