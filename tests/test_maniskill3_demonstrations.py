"""Claims about demonstrations as a dataset, on a point that carries objects."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from instructvla.evaluation.robot_conventions import widowx_state
from instructvla.evaluation.simulators.installation import FOLDER_VARIABLE
from instructvla.evaluation.simulators.maniskill3_demonstrations import DESCRIPTION, ManiSkill3Episodes, app
from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.prepare import motion_transform, prepare
from instructvla.training.data.readers import open_episodes
from tests.bridge_stand_in import GRIPPER, CarryingPoint


def episodes(count: int = 4, **settings) -> ManiSkill3Episodes:
    return ManiSkill3Episodes(count, **({"start": CarryingPoint} | settings))


def test_an_episode_is_in_bridge_s_convention():
    episode, bridge = episodes()[1], read_mapping("bridge").description
    assert (DESCRIPTION.action_names, DESCRIPTION.state_names) == (bridge.action_names, bridge.state_names)
    assert episode.actions.shape == (len(episode), 7) and episode.states.shape == (len(episode), 8)
    assert episode.instructions[0] == "do the carrot" and episode.control_rate_hz == 5
    np.testing.assert_allclose(episode.states[0], widowx_state(np.append(GRIPPER, 1.0)), rtol=1e-6)
    assert set(episode.actions[:, 6]) == {0.0, 1.0}


def test_each_picture_was_seen_before_its_action():
    episode = episodes()[0]
    shades = [np.asarray(Image.open(io.BytesIO(picture))).mean() for picture in episode.images["primary"][:5]]
    np.testing.assert_allclose(shades, range(5), atol=1)  # the point draws the number of steps it has made


def test_tasks_take_turns_and_the_same_number_gives_the_same_episode_in_a_copy():
    reader = episodes(8)
    assert [reader[i].instructions[0] for i in (0, 1, 2, 3, 4)] == [
        "do the spoon",
        "do the carrot",
        "do the stack",
        "do the eggplant",
        "do the spoon",
    ]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))[5].actions, reader[5].actions)
    assert not np.array_equal(reader[1].states[-1], reader[5].states[-1])  # other places


def test_a_broken_simulator_is_started_again_and_the_episode_is_the_same():
    started = []

    def start() -> CarryingPoint:
        started.append(CarryingPoint(breaks_at=() if started else (10,)))
        return started[-1]

    np.testing.assert_array_equal(episodes(start=start)[0].actions, episodes()[0].actions)
    assert len(started) == 2


def test_one_that_keeps_breaking_is_told():
    with pytest.raises(SimulatorBrokeError):
        episodes(start=lambda: CarryingPoint(breaks_at=(10,)))[0]


def test_failures_of_the_expert_are_no_demonstrations():
    with pytest.raises(BadEpisodeError, match="spoon.*failed 5 times"):
        episodes(start=lambda: CarryingPoint(slippery=True))[0]


def test_prepared_demonstrations_have_language_motion(tmp_path):
    reader = episodes(2)
    prepare(reader, tmp_path / "data", transforms=(motion_transform(reader.description),), settings={"motion": True})
    read = open_episodes(tmp_path / "data")
    assert len(read) == 2 and read.description == DESCRIPTION
    np.testing.assert_array_equal(read[0].actions, reader[0].actions)
    assert any("down" in motion for motion in read[0].language_motions)
    assert "close gripper" in read[0].language_motions


@pytest.mark.parametrize("fields", [{"count": 0}, {"seed": -1}, {"tasks": ["fold"]}])
def test_wrong_settings_are_refused(fields):
    with pytest.raises(ValueError, match="count is 0|seed -1|no task 'fold'"):
        episodes(**fields)


def test_without_the_simulator_the_command_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    printed = CliRunner().invoke(app, ["--output", str(tmp_path / "data")])
    assert printed.exit_code == 2 and "instructvla install-simulator maniskill3" in printed.stderr
