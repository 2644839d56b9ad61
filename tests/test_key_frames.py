"""Claims about the three pictures of an episode."""

import base64

import pytest

from instructvla.training.annotation.key_frames import chosen_camera, key_frames, key_steps
from instructvla.training.data.episodes import BadEpisodeError
from tests.annotation_answers import BROKEN_PICTURES, changed_episodes
from tests.memory_episodes import bridge_episodes


def test_they_are_the_first_the_middle_and_the_last_as_recorded():
    episode = bridge_episodes(1)[0]
    frames = key_frames(episode)
    assert all(frame.startswith("data:image/jpeg;base64,") for frame in frames)
    pictures = episode.images["primary"]
    shown = [base64.b64decode(frame.partition(",")[2]) for frame in frames]
    assert shown == [pictures[0], pictures[2], pictures[3]]
    assert [key_steps(steps) for steps in (1, 2, 3, 28)] == [(0, 0, 0), (0, 1, 1), (0, 1, 2), (0, 14, 27)]


def test_a_picture_that_does_not_decode_is_never_sent():
    episode = changed_episodes(1, {0: BROKEN_PICTURES})[0]
    with pytest.raises(BadEpisodeError, match=r"the picture of step 0 can't be decoded: .*; record it again"):
        key_frames(episode)


def test_the_camera_is_the_first_or_the_one_asked_for():
    assert chosen_camera(["front", "wrist"], None) == "front"
    assert chosen_camera(["front", "wrist"], "wrist") == "wrist"
    with pytest.raises(ValueError, match="--camera side is none of the dataset's, which are front, wrist"):
        chosen_camera(["front", "wrist"], "side")
    with pytest.raises(ValueError, match="the dataset has no camera"):
        chosen_camera([], None)
