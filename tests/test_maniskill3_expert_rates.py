"""Claims about the table of the expert's successes."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.recordings import Recording
from instructvla.evaluation.simulators.maniskill3_benchmark import maniskill3_trials
from instructvla.evaluation.simulators.maniskill3_expert_rates import app, expert_table, recorded
from tests.bridge_stand_in import CarryingPoint


def test_the_table_counts_successes_and_names_failures(tmp_path):
    trials = maniskill3_trials(["carrot"], 3)
    points = [CarryingPoint(), CarryingPoint(slippery=True), CarryingPoint()]
    recordings = [recorded(point, trial, tmp_path) for point, trial in zip(points, trials, strict=True)]
    row = expert_table(recordings).splitlines()[1].split()
    assert row[:3] == ["carrot", "2/3", "66.7"] and row[-1] == "1"


def test_an_episode_is_kept_for_replays_and_not_run_again(tmp_path):
    trial = maniskill3_trials(["spoon"], 1)[0]
    recorded(CarryingPoint(), trial, tmp_path)
    (path,) = tmp_path.iterdir()
    assert Recording.load(path).trial == trial and Recording.load(path).cameras == ("primary",)
    idle = CarryingPoint()
    assert recorded(idle, trial, tmp_path).successes[-1] and idle.steps == 0


def test_a_recording_of_another_trial_is_refused(tmp_path):
    trial = maniskill3_trials(["spoon"], 1)[0]
    recorded(CarryingPoint(), trial, tmp_path)
    with pytest.raises(ValueError, match="another trial; give a new folder"):
        recorded(CarryingPoint(), replace(trial, seed=5), tmp_path)


def test_a_simulator_that_breaks_is_one_line_and_the_next_call_goes_on(tmp_path, monkeypatch):
    points = iter([CarryingPoint(breaks_at=[50]), CarryingPoint()])
    monkeypatch.setattr("instructvla.evaluation.simulators.maniskill3_expert_rates.start_process", lambda: next(points))
    command = [str(tmp_path), "--task", "spoon", "--episodes", "2"]
    broken = CliRunner().invoke(app, command)
    assert broken.exit_code == 2 and broken.stderr == "error: the point is gone; call again to go on.\n"
    assert len(list(tmp_path.iterdir())) == 1
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "2/2" in done.stdout
