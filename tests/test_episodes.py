"""Claims about the episode that every reader yields."""

import numpy as np
import pytest

from instructvla.training.data.episodes import Episode


def episode(**changes) -> Episode:
    columns = {
        "dataset": "bridge",
        "episode_id": "7",
        "images": {"primary": [b"a", b"b"]},
        "actions": np.zeros((2, 7), np.float32),
        "states": np.zeros((2, 8), np.float32),
        "instructions": ["go", "go"],
        "control_rate_hz": 5.0,
    }
    return Episode(**(columns | changes))


def test_its_length_is_its_number_of_steps():
    assert len(episode()) == 2
    assert len(episode(states=None, instructions=[None, None])) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"images": {"primary": [b"a"]}},
        {"states": np.zeros((3, 8), np.float32)},
        {"instructions": ["go"]},
        {"language_motions": ["move up"]},
    ],
)
def test_columns_of_different_lengths_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=f"bridge/7: there are 2 actions.*{next(iter(changes))}"):
        episode(**changes)


@pytest.mark.parametrize("actions", [np.zeros(7, np.float32), np.zeros((2, 7))])
def test_actions_of_another_shape_or_type_are_refused(actions):
    with pytest.raises(ValueError, match="actions must be"):
        episode(actions=actions)


def test_an_episode_without_steps_is_refused():
    with pytest.raises(ValueError, match="there are 0 actions"):
        episode(actions=np.zeros((0, 7), np.float32), states=None, images={}, instructions=[])
