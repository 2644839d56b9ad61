"""Claims about recorded episodes."""

from dataclasses import replace

import numpy as np
import pytest

from instructvla.evaluation.recordings import Recorder, Recording, load_recordings
from instructvla.evaluation.simulators.simulator import Trial
from tests.stand_in_simulator import PointSimulator

TRIAL = Trial("reach it/slowly", 2, 5, "widowx", 10, options={"target": [0.2, 0.0, 0.1]})


def recorded(steps: int = 3) -> Recording:
    simulator = PointSimulator()
    recorder = Recorder(TRIAL, simulator.reset(TRIAL), "reach it")
    for step in range(steps):
        if step == 2:
            recorder.tell("go on")
        action = np.full(7, step / 100)
        recorder.add(action, 2 * action, simulator.step(2 * action))
    return recorder.recording()


def test_a_recording_has_a_state_more_than_actions():
    recording = recorded()
    assert recording.actions.shape == recording.commands.shape == (3, 7)
    assert recording.states.shape == (4, 3) and len(recording.rewards) == len(recording.successes) == 4
    np.testing.assert_array_equal(recording.commands, 2 * recording.actions)
    assert recording.instructions == ((0, "reach it"), (2, "go on")) and recording.cameras == ("primary",)


def test_it_comes_back_from_its_file_bit_by_bit(tmp_path):
    recording = recorded()
    path = recording.save(tmp_path / "recordings")
    assert path.name == "reach-it-slowly_0002.npz" and [path] == list(path.parent.iterdir())
    (loaded,) = load_recordings(path.parent)
    assert loaded.trial == TRIAL and loaded.instructions == recording.instructions
    assert loaded.differences(recording) == []


def test_the_first_difference_is_named():
    recording = recorded()
    states = recording.states.copy()
    states[2, 1] = np.nextafter(states[2, 1], 1)
    assert recording.differences(replace(recording, states=states)) == ["states from step 2 on"]
    assert "actions from step 2 on" in recording.differences(recorded(steps=2))


def test_what_is_no_recording_is_named(tmp_path):
    with pytest.raises(ValueError, match="has no recordings"):
        load_recordings(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"x.npz is no recording"):
        load_recordings(tmp_path)
