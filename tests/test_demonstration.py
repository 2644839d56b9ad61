"""Claims about the scripted experts' commands."""

from dataclasses import replace

import numpy as np
import pytest

from instructvla.evaluation.recordings import Recording, load_recordings
from instructvla.evaluation.simulators.demonstration import run_command
from instructvla.evaluation.simulators.simulator import Trial
from tests.stand_in_benchmark import trials
from tests.test_recordings import recorded


def expert(good: int):
    """Succeeds in one trial of its task."""

    def demonstrate(trial: Trial) -> Recording:
        recording = recorded()
        return replace(recording, trial=trial, successes=np.full(len(recording.states), trial.index == good))

    return demonstrate


def test_the_first_success_is_kept_and_failures_before_are_told(tmp_path, capsys):
    run_command("", trials, expert(good=1), ["far", str(tmp_path), "--tries", "3"])
    (recording,) = load_recordings(tmp_path)
    assert recording.trial.key == ("far", 1)
    assert capsys.readouterr().err == f"far, trial 0: failed after {len(recording.actions)} steps\n"


def test_without_a_success_nothing_is_kept(tmp_path):
    with pytest.raises(SystemExit, match="error: the scripted expert failed in 2 trials of far; nothing is kept"):
        run_command("", trials, expert(good=2), ["far", str(tmp_path / "new"), "--tries", "2"])
    assert not (tmp_path / "new").exists()


def test_an_unknown_task_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="error: there is no task 'left'; there are near, far"):
        run_command("", trials, expert(good=0), ["left", str(tmp_path)])
