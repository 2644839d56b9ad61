"""Claims about asking: whatever the endpoint does, each episode gets its answer, and no more is paid than must be."""

import asyncio
import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from instructvla.training.annotation.annotation_journal import AnnotationJournal, reply_at
from instructvla.training.annotation.annotation_run import AnnotationRun, Prices, check_model, pending_episodes
from instructvla.training.annotation.chat_endpoint import ChatEndpoint, EndpointError, FailedRequestError, Reply
from tests.annotation_answers import (
    BROKEN_PICTURES,
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


def annotate(server, folder, reader=None, settings=QUICK, model=MODEL, **endpoint):
    """What becomes of asking about all episodes, and the journal's state."""
    reader = reader or bridge_episodes(COUNT)

    async def run(journal):
        asked = ChatEndpoint(server.url, model, **{"timeout_s": 5, **endpoint})
        try:
            pending = pending_episodes(journal, range(len(reader)), settings.asks)
            return await AnnotationRun(asked, journal, settings).ask_all(reader, pending)
        finally:
            await asked.close()

    with open_journal(folder) as journal:
        outcome = asyncio.run(run(journal))
    return outcome, AnnotationJournal.read(folder, SETTINGS)


def test_every_episode_is_asked_about_once_and_not_again(tmp_path):
    with ChatServer(good) as server:
        outcome, journal = annotate(server, tmp_path, settings=replace(QUICK, prices=Prices(2.0, 10.0)))
        assert outcome.failed == {} and sorted(journal.answers) == list(range(COUNT))
        assert sorted(episode_of(body) for body in server.requests) == list(range(COUNT))
        assert journal.cost == pytest.approx(COUNT * (1000 * 2 + 100 * 10) / 1e6)
        annotate(server, tmp_path)
    assert len(server.requests) == COUNT
    assert all("response_format" in body for body in server.requests)


@pytest.mark.parametrize(
    "lie",
    [
        "",
        "I'm sorry, but I can't help with that.",
        json.dumps(annotation_answer(2))[:-40],
        json.dumps({"annotation": "none"}),
        json.dumps(annotation_answer(2, question_answering=[])),
        Behaviour(None, refusal="no"),
        Behaviour(json.dumps(annotation_answer(2)), finish_reason="length"),
        Behaviour(body=b"<html>maintenance</html>"),
        Behaviour(body=b"{}"),
        Behaviour("", usage=None),
    ],
    ids=["empty", "prose", "cut", "schema", "too few", "refusal", "length", "no JSON", "no completion", "no usage"],
)
def test_an_answer_that_is_no_use_is_paid_for_kept_and_asked_for_again(tmp_path, lie):
    with ChatServer(first_asked(lie, episode=2)) as server:
        outcome, journal = annotate(server, tmp_path)
    assert outcome.failed == {} and sorted(journal.answers) == list(range(COUNT))
    assert journal.asked[2] == 2 and sum(journal.unusable.values()) == 1
    again = [body for body in server.requests if episode_of(body) == 2][1]
    (problem,) = journal.unusable
    assert problem in again["messages"][-1]["content"]


@pytest.mark.parametrize(
    "failure",
    [Behaviour(status=500), Behaviour(status=429, headers={"Retry-After-Ms": "10"}), Behaviour(reset=True)],
    ids=["500", "429", "reset"],
)
def test_a_request_that_fails_costs_nothing_and_is_repeated(tmp_path, failure):
    with ChatServer(first_asked(failure, episode=2)) as server:
        outcome, journal = annotate(server, tmp_path)
    assert outcome.failed == {} and sum(journal.asked.values()) == COUNT == len(journal.answers)
    assert len(server.requests) == COUNT + 1


def test_an_episode_that_always_fails_holds_nobody_up_and_is_asked_about_by_the_next_run(tmp_path):
    def behave(body, number):
        return Behaviour("too large", status=413) if episode_of(body) == 2 else good(body)

    with ChatServer(behave) as server:
        outcome, journal = annotate(server, tmp_path)
        assert list(outcome.failed) == [2] and "too large" in outcome.failed[2]
        assert sorted(journal.answers) == [0, 1, 3, 4, 5] and journal.asked[2] == 0
        server.behave = good
        outcome, journal = annotate(server, tmp_path)
    assert outcome.failed == {} and sorted(journal.answers) == list(range(COUNT))
    assert len(server.requests) == COUNT + 1


def test_a_model_that_never_makes_sense_is_given_up_with_the_episode(tmp_path):
    def behave(body, number):
        return "no" if episode_of(body) == 2 else good(body)

    with ChatServer(behave) as server:
        _, journal = annotate(server, tmp_path)
        assert journal.asked[2] == QUICK.asks and 2 not in journal.answers
        annotate(server, tmp_path)  # another run does not pay for it again …
        assert len(server.requests) == COUNT - 1 + QUICK.asks
        _, journal = annotate(server, tmp_path, settings=replace(QUICK, asks=QUICK.asks + 1))  # … unless it is told to
    assert journal.asked[2] == QUICK.asks + 1


def test_the_same_words_for_every_episode_are_believed_once(tmp_path):
    with ChatServer(lambda body, number: json.dumps(annotation_answer(0))) as server:
        _, journal = annotate(server, tmp_path, settings=replace(QUICK, concurrency=1))
    assert sorted(journal.answers) == [0] and sum(journal.asked.values()) == 1 + (COUNT - 1) * QUICK.asks


def test_no_more_questions_are_under_way_than_allowed(tmp_path):
    with ChatServer(lambda body, number: Behaviour(good(body), delay_s=0.2)) as server:
        annotate(server, tmp_path, bridge_episodes(9), replace(QUICK, concurrency=3))
    assert server.most_open == 3


def test_a_dead_endpoint_stops_the_run_and_keeps_what_there_is(tmp_path):
    def behave(body, number):
        return good(body) if number < 3 else Behaviour("out of order", status=500)

    told = pytest.raises(EndpointError, match=r"10 questions in a row failed, so the run stops: .*out of order.*kept")
    with ChatServer(behave) as server:
        with told:
            annotate(server, tmp_path, bridge_episodes(40), retries=0)
        assert len(server.requests) < 3 + 10 + 2 * QUICK.concurrency
        server.behave = good
        _, journal = annotate(server, tmp_path, bridge_episodes(40))
    assert sorted(journal.answers) == list(range(40)) and sum(journal.asked.values()) == 40


def test_a_wrong_key_is_told_after_one_request_of_each_task(tmp_path):
    told = pytest.raises(EndpointError, match="the key of OPENAI_API_KEY is not accepted")
    with ChatServer(lambda body, number: Behaviour("bad key", status=401)) as server, told:
        annotate(server, tmp_path)
    assert len(server.requests) <= QUICK.concurrency


def test_the_answers_of_another_model_are_not_taken_for_this_ones(tmp_path):
    other = "weak-vlm"
    told = pytest.raises(EndpointError, match="answered as weak-vlm, but --model is strong-vlm.*--answers-as weak-vlm")
    with ChatServer(lambda body, number: Behaviour(good(body), model=other)) as server:
        with told:
            annotate(server, tmp_path)
        assert len(server.requests) <= QUICK.concurrency
        _, journal = annotate(server, tmp_path, settings=replace(QUICK, answers_as=other))
    assert journal.models == {other: COUNT}  # what was paid for before is kept, and told


def test_a_version_or_a_prefix_is_the_same_model():
    for name in ("gpt-4o", "gpt-4o-2024-08-06", "openai/gpt-4o", ""):
        check_model(name, "gpt-4o", None)
    check_model("gpt-4o", "openai/gpt-4o", None)
    for name in ("gpt-4", "gpt-4omni", "mini/gpt-5"):
        with pytest.raises(EndpointError):
            check_model(name, "gpt-4o", None)


def test_episodes_without_instruction_or_pictures_are_excluded_and_cost_nothing(tmp_path):
    reader = changed_episodes(COUNT, {1: NO_INSTRUCTION, 4: BROKEN_PICTURES})
    with ChatServer(good) as server:
        _, journal = annotate(server, tmp_path, reader)
        assert sorted(journal.answers) == [0, 2, 3, 5] and sorted(journal.excluded) == [1, 4]
        assert journal.excluded[1] == "no instruction" and "can't be decoded" in journal.excluded[4]
        annotate(server, tmp_path, reader)
    assert len(server.requests) == 4


def test_a_signal_ends_the_run_after_the_questions_under_way(tmp_path):
    def behave(body, number):
        if number == 1:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return Behaviour(good(body), delay_s=0.6)

    with ChatServer(behave) as server:
        outcome, journal = annotate(server, tmp_path, bridge_episodes(40), replace(QUICK, concurrency=2))
        assert outcome.stopped
        assert 0 < len(server.requests) <= 4
        assert len(journal.answers) == len(server.requests)  # all that was asked for has arrived
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Recorded:
    """An endpoint in this process."""

    model = MODEL

    def __init__(self, *replies):
        self.replies = list(replies)

    async def ask(self, messages, schema=None):
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_any_object_that_answers_will_do_and_unknown_tokens_have_no_price(tmp_path):
    answer = Reply(json.dumps(annotation_answer(0)))
    with open_journal(tmp_path) as journal:
        run = AnnotationRun(Recorded(FailedRequestError("no"), answer), journal, replace(QUICK, concurrency=1))
        outcome = asyncio.run(run.ask_all(bridge_episodes(2), [1, 0]))
        assert list(outcome.failed) == [1] and journal.unpriced == 1
        assert reply_at(journal.answers[0]).cost is None


def test_a_reader_that_breaks_ends_the_run_once_the_answers_under_way_are_there(tmp_path):
    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 2:
                raise OSError("the disk is gone")
            return bridge_episodes(3)[index]

    told = pytest.raises(OSError, match="the disk is gone")
    with ChatServer(lambda body, number: Behaviour(good(body), delay_s=0.5)) as server, told:
        annotate(server, tmp_path, Broken())
    assert sorted(AnnotationJournal.read(tmp_path, SETTINGS).answers) == [0, 1]


def test_reading_does_not_hold_up_answers(tmp_path):
    """Episodes are read in a thread: questions under way go on meanwhile."""
    with ChatServer(good) as server:
        start = time.monotonic()
        annotate(server, tmp_path, bridge_episodes(3, seconds=0.3))
    assert len(server.times) == 3 and server.times[0] - start < server.times[-1] - start - 0.5
