"""The expert's episodes as a dataset: the same everywhere, complete, and ready for training."""

import pickle

import numpy as np
import pytest

from instructvla.evaluation.tabletop.expert_episodes import DESCRIPTION, TabletopEpisodes
from instructvla.evaluation.tabletop.scene import Skill
from instructvla.training.data.language_motion import MotionSettings, with_language_motion
from instructvla.training.data.prepare import motion_transform, prepare
from instructvla.training.data.readers import open_episodes

SMALL = {"image_size": 32, "seed": 3}


@pytest.fixture(scope="module")
def episode():
    return TabletopEpisodes(6, **SMALL)[0]


def test_an_episode_holds_what_the_description_says(episode):
    steps = len(episode)
    assert set(episode.images) == set(DESCRIPTION.cameras)
    assert episode.actions.shape == (steps, len(DESCRIPTION.action_names))
    assert episode.states.shape == (steps, len(DESCRIPTION.state_names))
    assert np.abs(episode.actions[:, :3]).max() <= 0.05 + 1e-6
    assert set(np.unique(episode.actions[:, 6])) <= {0.0, 1.0}
    assert episode.annotation.caption and episode.annotation.questions and episode.annotation.rewritten


def test_the_same_number_gives_the_same_episode_after_others_and_in_a_copied_reader(episode):
    reader = TabletopEpisodes(6, **SMALL)
    reader[1]
    again = pickle.loads(pickle.dumps(reader))[0]
    assert again.instructions == episode.instructions and again.annotation == episode.annotation
    assert np.array_equal(again.actions, episode.actions)
    assert again.images == episode.images


def test_skills_take_turns():
    reader = TabletopEpisodes(2, skills=[Skill.OPEN, Skill.CLOSE], **SMALL)
    assert [reader[i].instructions[0] for i in range(2)] == ["open the drawer", "close the drawer"]


def test_every_second_round_of_skills_is_disturbed_and_labelled_with_the_experts_own_actions():
    """Both rounds have the expert's clean labels; only in the disturbed one the arm does something else."""
    calm, rough = (TabletopEpisodes(2, skills=[Skill.PICK_UP], noise=0.01, **SMALL)[i] for i in range(2))

    def missed(one) -> float:
        """Largest difference in m between the first moves and what the tool centre point then did."""
        return float(np.abs(np.diff(one.states[:4, :3], axis=0) - one.actions[:3, :3]).max())

    assert missed(rough) > 2 * missed(calm)


def test_commands_are_in_lower_case_as_the_policy_reads_them(episode):
    commands = [turn.question for turn in (*episode.annotation.rewritten, *episode.annotation.contexts)]
    assert commands == [command.lower() for command in commands]


def test_language_motion_names_what_the_arm_does(episode):
    motions = with_language_motion(episode, MotionSettings.from_dict(DESCRIPTION.motion)).language_motions
    assert all(motions) and any("down" in motion or "forward" in motion for motion in motions)


def test_prepared_episodes_are_read_back(tmp_path, episode):
    reader = TabletopEpisodes(2, **SMALL)
    prepare(reader, tmp_path / "data", transforms=(motion_transform(reader.description),), settings={"motion": True})
    read = open_episodes(tmp_path / "data")
    assert len(read) == 2 and np.array_equal(read[0].actions, episode.actions)
    assert read[0].annotation == episode.annotation and read[0].language_motions is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed -1"),
        ({"noise": -0.1}, "noise -0.1"),
        ({"split": "validation"}, "validation"),
        ({"skills": ["juggle"]}, "juggle"),
    ],
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TabletopEpisodes(**({"count": 2} | fields))
