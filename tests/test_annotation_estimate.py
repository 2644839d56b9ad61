"""Claims about the estimate before the start."""

import json

import pytest

from instructvla.training.annotation.annotation_estimate import ANSWER_TOKENS, Limits, asking_time, duration, estimate
from instructvla.training.annotation.annotation_journal import PaidReply
from instructvla.training.annotation.annotation_run import AskingSettings, Prices
from instructvla.training.annotation.episode_requests import episode_requests
from instructvla.training.annotation.token_estimate import estimated_tokens
from tests.annotation_answers import NO_INSTRUCTION, annotation_answer, changed_episodes, open_journal
from tests.memory_episodes import bridge_episodes

SETTINGS = AskingSettings(prices=Prices(2.0, 10.0))


def test_before_the_first_answer_it_follows_from_a_few_episodes(tmp_path):
    reader = bridge_episodes(20)
    (request,) = episode_requests(reader, [0])
    with open_journal(tmp_path) as journal:
        found = estimate(reader, journal, range(20), SETTINGS, Limits())
    assert found.episodes == 20 and found.measured == 0
    assert found.prompt_tokens == pytest.approx(estimated_tokens(request.messages), abs=1)
    assert found.cost == pytest.approx(20 * (found.prompt_tokens * 2 + ANSWER_TOKENS * 10) / 1e6)
    text = "\n".join(found.lines())
    assert "estimated from 8 episodes" in text and f"cost ${found.cost:,.2f}" in text


def test_answers_that_are_there_are_better_than_an_estimate(tmp_path):
    reader = bridge_episodes(20)
    with open_journal(tmp_path) as journal:
        for episode in range(4):
            text = json.dumps(annotation_answer(episode))
            journal.add(PaidReply(episode, f"put object {episode} on the plate", text, 3000, 300))
            journal.add(PaidReply(episode + 10, "", "no", 1000, 100))
        found = estimate(reader, journal, range(4, 10), SETTINGS, Limits())
    assert (found.measured, found.prompt_tokens, found.completion_tokens, found.asks) == (8, 2000, 200, 2.0)
    assert found.cost == pytest.approx(6 * 2 * (2000 * 2 + 200 * 10) / 1e6)


def test_episodes_about_which_nothing_is_asked_cost_nothing(tmp_path):
    reader = changed_episodes(8, {number: NO_INSTRUCTION for number in range(4)})
    with open_journal(tmp_path) as journal:
        found = estimate(reader, journal, range(8), SETTINGS, Limits())
    assert found.episodes == 4 and found.excluded == 4
    assert "4 of 8 episodes that were read have no instruction" in "\n".join(found.lines())


def test_without_prices_the_cost_is_unknown(tmp_path):
    with open_journal(tmp_path) as journal:
        found = estimate(bridge_episodes(2), journal, range(2), AskingSettings(), Limits())
    assert found.cost is None and "cost unknown: give --price-in and --price-out" in "\n".join(found.lines())


def test_the_slowest_limit_sets_the_time():
    assert asking_time(1000, 3000, 10, Limits()) == (1500.0, "10 questions at once, 15 s each, by assumption")
    assert asking_time(1000, 3000, 10, Limits(requests=20)) == (3000.0, "20 requests a minute")
    assert asking_time(1000, 3000, 10, Limits(20, 30_000)) == (6000.0, "30,000 tokens a minute")
    assert [duration(s) for s in (12, 600, 7500, 400_000)] == ["12 s", "10 min", "2 h 5 min", "111 h 7 min"]
