"""Claims about what is asked, and about which episodes nothing is."""

import asyncio

import pytest

from instructvla.training.annotation.episode_requests import (
    RequestFeed,
    episode_requests,
    parse_shard,
    shard_numbers,
)
from tests.annotation_answers import BROKEN_PICTURES, NO_INSTRUCTION, changed_episodes, episode_of
from tests.memory_episodes import bridge_episodes


def test_an_episode_is_asked_about_by_its_instruction():
    (request,) = episode_requests(bridge_episodes(6), [4])
    assert (request.episode, request.instruction, request.excluded) == (4, "put object 4 on the plate", None)
    assert episode_of({"messages": request.messages}) == 4


def test_the_first_step_that_has_an_instruction_tells_it():
    later = {"language_instruction": ["", "", "", "open the drawer", "open the drawer", ""]}
    (request,) = episode_requests(changed_episodes(1, {0: later}), [0])
    assert request.instruction == "open the drawer"


def test_what_nothing_can_be_asked_about_is_excluded_and_the_others_go_on():
    reader = changed_episodes(4, {1: NO_INSTRUCTION, 2: BROKEN_PICTURES})
    found = {request.episode: request.excluded for request in episode_requests(reader, range(4))}
    assert found[0] is found[3] is None and found[1] == "no instruction"
    assert found[2].startswith("it can't be read: ") and "picture of step 0 can't be decoded" in found[2]
    reader = bridge_episodes(3, bad=(1,))
    assert [request.excluded is None for request in episode_requests(reader, range(3))] == [True, False, True]


def test_shards_share_the_episodes_and_the_limit():
    shards = [shard_numbers(10, (number, 3), limit=8) for number in (1, 2, 3)]
    assert sorted(number for shard in shards for number in shard) == list(range(8))
    assert list(shard_numbers(3)) == [0, 1, 2] and list(shard_numbers(3, limit=9)) == [0, 1, 2]
    assert parse_shard("2/8") == (2, 8)


@pytest.mark.parametrize("text", ["0/8", "9/8", "1", "1/2/3", "a/b", "-1/2", ""])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="--shard is .*; give which of how many, from 1/8 to 8/8"):
        parse_shard(text)


def test_a_feed_hands_each_request_to_one_task():
    async def run():
        feed, seen = RequestFeed(episode_requests(bridge_episodes(5), range(5))), []

        async def take():
            while (request := await feed.next()) is not None:
                seen.append(request.episode)

        await asyncio.gather(*(take() for _ in range(3)))
        return sorted(seen)

    assert asyncio.run(run()) == list(range(5))
