"""Claims about asking in batches: killed anywhere, another run finds what was created and pays for nothing twice."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from instructvla.training.annotation import batch_api
from instructvla.training.annotation.annotation_journal import AnnotationJournal
from instructvla.training.annotation.batch_api import BatchRun, BatchSettings
from instructvla.training.annotation.chat_endpoint import ChatEndpoint, EndpointError
from tests.annotation_answers import (
    NO_INSTRUCTION,
    QUICK,
    SETTINGS,
    annotation_answer,
    changed_episodes,
    episode_of,
    first_asked,
    good,
    open_journal,
)
from tests.chat_server import MODEL, Behaviour, ChatServer
from tests.memory_episodes import bridge_episodes

COUNT = 6
BATCHES = BatchSettings(requests=4, poll_s=0.01)


def annotate(server, folder, reader=None, settings=QUICK, batches=BATCHES):
    reader = reader or bridge_episodes(COUNT)

    async def run(journal):
        endpoint = ChatEndpoint(server.url, MODEL)
        try:
            return await BatchRun(endpoint, journal, settings, batches).ask_all(reader, range(len(reader)))
        finally:
            await endpoint.close()

    with open_journal(folder) as journal:
        outcome = asyncio.run(run(journal))
    return outcome, AnnotationJournal.read(folder, SETTINGS)


def asked_about(server):
    """How often each episode was worked on, by the provider's account."""
    return sorted(episode_of(body) for body in server.requests)


def test_all_episodes_are_asked_about_in_as_many_batches_as_it_takes(tmp_path):
    reader = changed_episodes(COUNT, {1: NO_INSTRUCTION})
    with ChatServer(good) as server:
        outcome, journal = annotate(server, tmp_path, reader)
        assert outcome.failed == {} and sorted(journal.answers) == [0, 2, 3, 4, 5] and sorted(journal.excluded) == [1]
        assert [len(batch.instructions) for batch in journal.batches.values()] == [4, 1]
        assert all(batch.done for batch in journal.batches.values())
        annotate(server, tmp_path, reader)
    assert len(server.batches) == 2 and asked_about(server) == [0, 2, 3, 4, 5]
    assert all("response_format" in body for body in server.requests)
    assert {path.name for path in tmp_path.iterdir()} == {"journal.jsonl"}


def test_a_file_is_no_larger_than_allowed(tmp_path):
    with ChatServer(good) as server:
        annotate(server, tmp_path, batches=replace(BATCHES, size=30_000))
        sizes = [len(server.files[batch["input_file_id"]]) for batch in server.batches.values()]
    assert len(sizes) > 1 and max(sizes) <= 30_000


def test_what_can_not_be_used_is_asked_for_again_in_another_batch(tmp_path):
    with ChatServer(first_asked("I can't.", episode=2)) as server:
        _, journal = annotate(server, tmp_path)
    assert sorted(journal.answers) == list(range(COUNT)) and journal.asked[2] == 2
    assert "it holds no JSON object" in server.requests[-1]["messages"][-1]["content"]


def test_an_answer_with_a_line_separator_of_unicode_is_not_lost(tmp_path):
    """Providers write U+2028 as it is, and `str.splitlines` would cut the answer in two."""
    with ChatServer(lambda body, number: good(body) + "\u2028\x85") as server:
        _, journal = annotate(server, tmp_path)
    assert sorted(journal.answers) == list(range(COUNT)) and journal.asked.total() == COUNT


def test_requests_that_fail_in_a_batch_are_told_and_asked_again(tmp_path):
    with ChatServer(first_asked(Behaviour("too large", status=400), episode=2)) as server:
        outcome, journal = annotate(server, tmp_path)
    assert outcome.failed == {} and sorted(journal.answers) == list(range(COUNT)) and journal.asked[2] == 1

    def always(body, number):
        return Behaviour("too large", status=400) if episode_of(body) == 2 else good(body)

    with ChatServer(always) as server:
        outcome, journal = annotate(server, tmp_path / "always")
    assert "too large" in outcome.failed[2] and sorted(journal.answers) == [0, 1, 3, 4, 5]


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize("line", range(2, 12))
def test_killed_before_any_line_of_the_journal_nothing_is_paid_for_twice(tmp_path, monkeypatch, line):
    """Line after line: before a batch is created, after it but before its id is noted, between its answers."""
    real, written = AnnotationJournal._append, [0]

    def append(self, value):
        written[0] += 1
        if written[0] == line:
            raise Killed
        return real(self, value)

    with ChatServer(good) as server:
        with monkeypatch.context() as patched:
            patched.setattr(AnnotationJournal, "_append", append)
            with suppress(Killed):
                annotate(server, tmp_path)
        assert written[0] == line
        _, journal = annotate(server, tmp_path)
        assert sorted(journal.answers) == list(range(COUNT)) and sum(journal.asked.values()) == COUNT
        assert asked_about(server) == list(range(COUNT))
    assert journal.open_batches() == []


def test_results_that_are_doubled_foreign_or_no_json_are_left_out(tmp_path):
    with ChatServer(good) as server:
        real = server.RequestHandlerClass.keep

        def keep(handler, content):
            lines = content.splitlines()
            if content and b'"response"' in content:
                foreign = json.loads(lines[0]) | {"custom_id": "4711"}
                lines = [*lines, lines[0], json.dumps(foreign).encode(), b"<html>", b'{"custom_id": null}', b"[]"]
            return real(handler, b"\n".join(lines))

        server.RequestHandlerClass = type("Lying", (server.RequestHandlerClass,), {"keep": keep})
        _, journal = annotate(server, tmp_path)
    assert sorted(journal.answers) == list(range(COUNT)) and sum(journal.asked.values()) == COUNT


def test_a_batch_that_is_given_up_is_told_and_the_next_run_begins_another(tmp_path):
    with ChatServer(good) as server:
        real = server.RequestHandlerClass.polled

        def polled(handler, batch):
            return batch | {"status": "failed", "errors": {"data": [{"message": "queue is full"}]}}

        server.RequestHandlerClass.polled = polled
        try:
            with pytest.raises(EndpointError, match="batch batch-0 was given up by the provider: queue is full"):
                annotate(server, tmp_path, batches=BatchSettings(poll_s=0.01))
        finally:
            server.RequestHandlerClass.polled = real
        _, journal = annotate(server, tmp_path)
    assert sorted(journal.answers) == list(range(COUNT)) and asked_about(server) == list(range(COUNT))


def test_an_endpoint_without_a_batch_api_says_so(tmp_path):
    with ChatServer(good) as server:
        handler = server.RequestHandlerClass
        server.RequestHandlerClass = type(
            "Plain", (handler,), {"do_POST": lambda self: self.send_json({"error": {"message": "none here"}}, 404)}
        )
        with pytest.raises(EndpointError, match="there is no such address or model"):
            annotate(server, tmp_path)


def test_the_bodies_of_results_are_replies():
    body = Behaviour(json.dumps(annotation_answer(0))).completion()
    reply = batch_api.reply_of_body(body)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.problem) == (1000, 100, None)
    for lie in (None, [], {}, {"choices": None}, {"choices": []}, "text"):
        assert batch_api.reply_of_body(lie).problem == "the endpoint's answer is no chat completion"
