"""Claims about what is asked, and about which episodes nothing is."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageSequence

from instructvla.training.annotation.episode_requests import (
    RequestFeed,
    episode_request,
    episode_requests,
    parse_shard,
    shard_numbers,
)
from instructvla.training.annotation.token_estimate import estimated_tokens
from instructvla.training.data.encoded_pictures import encoded
from instructvla.training.data.episodes import Episode
from tests.annotation_answers import BROKEN_PICTURES, NO_INSTRUCTION, changed_episodes, episode_of, user_text
from tests.memory_episodes import SHARED, bridge_episodes

BRIDGE = SHARED / "bridge_vlait"


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


@pytest.mark.skipif(not BRIDGE.is_dir(), reason=f"{BRIDGE} is absent")
def test_the_request_about_a_real_episode_is_its_task_and_its_begin_middle_and_end():
    """VLA-IT's Bridge episode: a small spoon from the basket to the tray, in 28 frames."""
    with Image.open(BRIDGE / "episode.gif") as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    (record,) = (r for r in json.loads((BRIDGE / "vlait_examples.json").read_text())["examples"] if "frames" in r)
    episode = Episode(
        dataset="bridge",
        episode_id=record["episode_id"],
        images={"primary": [encoded(np.asarray(frame)) for frame in frames]},
        actions=np.zeros((len(frames), 7), np.float32),
        states=None,
        instructions=[record["instruction"]] * len(frames),
        control_rate_hz=5.0,
        file_path=record["file_path"],
    )
    request = episode_request(0, episode, camera=None)
    assert user_text({"messages": request.messages}).splitlines() == [
        'Instruction: "put small spoon from basket to tray"',
        "First picture:",
        "Middle picture:",
        "Last picture:",
    ]
    urls = [part["image_url"]["url"] for part in request.messages[1]["content"] if part["type"] == "image_url"]
    shown = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
    for picture, step in zip(shown, (0, 14, 27), strict=True):
        assert picture.size == (256, 256)
        assert np.abs(np.asarray(picture, int) - np.asarray(frames[step], int)).mean() < 3  # JPEG's loss
    assert 2500 < estimated_tokens(request.messages) < 3500
