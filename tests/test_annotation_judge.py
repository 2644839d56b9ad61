"""Claims about a second model's verdicts."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from instructvla.evaluation.ledger import Ledger
from instructvla.training.annotation.annotation_judge import (
    JudgedEpisode,
    Verdicts,
    judge_all,
    messages,
    schema,
    verdicts,
)
from instructvla.training.annotation.chat_endpoint import FailedRequestError, Reply
from instructvla.training.annotation.entry_checks import Reason
from instructvla.training.annotation.mark_rates import ErrorType
from tests.annotated_episodes import ANNOTATIONS, INSTRUCTIONS

EPISODE = JudgedEpisode(0, INSTRUCTIONS[0], ANNOTATIONS[0], frozenset({("cr", 1)}), ("data:image/png;base64,AA==",))


class Judge:
    """Answers what `answer` makes of each request's entries."""

    def __init__(self, answer: Callable[[list[str]], str]):
        self.answer, self.asked = answer, []

    async def ask(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Reply:
        self.asked.append(messages)
        entries = schema["properties"]["verdicts"]["items"]["properties"]["entry"]["enum"]
        return Reply(self.answer(entries), prompt_tokens=100, completion_tokens=10)


def all_right(entries: list[str]) -> str:
    return answer(*({"entry": entry, "score": 1, "error": "none", "reason": "fine"} for entry in entries))


def answer(*given: dict[str, Any]) -> str:
    return json.dumps({"verdicts": given})


def faulty(entries: list[str]) -> str:
    found = json.loads(all_right(entries))
    found["verdicts"][-1] |= {"score": 0, "error": "Ignore Vision Context", "reason": "there is no dinner"}
    return f"Here you are: {json.dumps(found)}"


def judged(judge: Judge, ledger: Ledger, *episodes: JudgedEpisode) -> dict[int, str]:
    return asyncio.run(judge_all(judge, iter(episodes), ledger, concurrency=2))


def test_the_judge_sees_pictures_instruction_and_the_entries_that_passed():
    request, entries = messages(EPISODE), schema(EPISODE)["properties"]["verdicts"]["items"]["properties"]["entry"]
    picture, text = request[1]["content"]
    assert picture["image_url"]["url"] == EPISODE.pictures[0]
    assert INSTRUCTIONS[0] in text["text"] and "Lay the cutlery on the dish. → I will put" in text["text"]
    assert "fork" not in text["text"]
    assert entries["enum"] == ["caption/0", "qa/0", "cr/0", "cc/0"]


def test_verdicts_become_marks_and_a_zero_rejects_the_entry():
    found = asyncio.run(verdicts(Judge(faulty), EPISODE))
    assert [mark.score for mark in found.marks] == [1, 1, 1, 0]
    assert found.marks[-1].error is ErrorType.IGNORED_CONTEXT and found.marks[0].error is None
    (rejection,) = found.rejections
    assert (rejection.kind, rejection.number, rejection.reason) == ("cc", 0, Reason.JUDGED)
    assert rejection.evidence == "Ignore Vision Context: there is no dinner"


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        answer(),
        answer({"entry": "caption/0", "score": 0.7, "error": "none", "reason": ""}),
        '{"verdicts": 3}',
    ],
)
def test_an_answer_that_can_not_be_used_is_asked_for_once_more_and_all_is_counted(text):
    judge = Judge(lambda entries: text)
    found = asyncio.run(verdicts(judge, EPISODE))
    assert len(judge.asked) == 2 and found.prompt_tokens == 200 and found.problem and not found.marks


def test_a_resumed_run_asks_only_what_has_no_verdict_yet(tmp_path):
    other = JudgedEpisode(3, INSTRUCTIONS[3], ANNOTATIONS[3])
    judge = Judge(all_right)
    judged(judge, Ledger.open(tmp_path, {}, Verdicts), EPISODE)
    judged(judge, Ledger.open(tmp_path, {}, Verdicts), EPISODE, other)
    assert len(judge.asked) == 2
    changed = JudgedEpisode(0, INSTRUCTIONS[0], ANNOTATIONS[0])  # with the entry that was left out
    ledger = Ledger.open(tmp_path, {}, Verdicts)
    judged(judge, ledger, changed, other)
    assert len(judge.asked) == 3 and set(ledger.outcomes) == {EPISODE.key, other.key, changed.key}


def test_what_was_unusable_is_asked_again_by_another_run(tmp_path):
    judged(Judge(lambda entries: "?"), Ledger.open(tmp_path, {}, Verdicts), EPISODE)
    ledger = Ledger.open(tmp_path, {}, Verdicts)
    assert ledger.outcomes[EPISODE.key].problem
    judged(Judge(all_right), ledger, EPISODE)
    assert ledger.outcomes[EPISODE.key].problem is None


def test_an_episode_without_entries_costs_nothing(tmp_path):
    judge = Judge(all_right)
    judged(
        judge, Ledger.open(tmp_path, {}, Verdicts), JudgedEpisode(1, None, ANNOTATIONS[1], frozenset({("caption", 0)}))
    )
    assert not judge.asked


def test_single_failures_are_left_for_another_run_and_many_in_a_row_end_it(tmp_path):
    class Failing:
        async def ask(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Reply:
            raise FailedRequestError("the endpoint can't be reached")

    episodes = [JudgedEpisode(number, INSTRUCTIONS[0], ANNOTATIONS[0]) for number in range(20)]
    ledger = Ledger.open(tmp_path, {}, Verdicts)
    assert judged(Failing(), ledger, *episodes[:4]) == dict.fromkeys(range(4), "the endpoint can't be reached")
    assert not ledger.outcomes
    with pytest.raises(FailedRequestError, match="can't be reached"):
        judged(Failing(), ledger, *episodes)
