"""The scripted expert in SimplerEnv's WidowX tasks: in a stand-in, and in the simulator by its command."""

import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from instructvla.evaluation.recordings import load_recordings
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.simpler_env_benchmark import BENCHMARK, simpler_env_trials
from instructvla.evaluation.simulators.simpler_env_demonstration import (
    HANDLINGS,
    STANDING_CANS,
    demonstrate,
    grip,
    poses,
    trials,
)
from instructvla.evaluation.simulators.simulator import Observation, Trial
from tests.bridge_stand_in import CarryingPoint

CARROT = "put_carrot/visual_matching"
PLACES = {"positions": [[-0.2, -0.07, 0.887], [-0.2, 0.07, 0.87]], "orientations": [[1.0, 0, 0, 0], [1.0, 0, 0, 0]]}


def pose(vector: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(p=vector[:3].astype(np.float32), q=vector[3:].astype(np.float32))


class SapienPoint(CarryingPoint):
    """The point, with its state where SAPIEN's environments have theirs."""

    def reset(self, trial: Trial) -> Observation:
        return super().reset(Trial(trial.task, 0, 0, "widowx", trial.max_steps, options=PLACES))

    @property
    def environment(self) -> SimpleNamespace:
        target = {"arm": {"target_pose": self.state.target.astype(np.float32)}}
        controller = SimpleNamespace(get_state=lambda: target)
        agent = SimpleNamespace(robot=SimpleNamespace(pose=pose(self.state.base)), controller=controller)
        things = {"source": self.state.source, "target": self.state.destination}
        objects = {f"episode_{name}_obj": SimpleNamespace(pose=pose(place)) for name, place in things.items()}
        return SimpleNamespace(unwrapped=SimpleNamespace(agent=agent, **objects))


@pytest.mark.parametrize("task", HANDLINGS)
def test_every_task_is_one_of_a_benchmark_and_its_plan_brings_the_object_to_its_destination(task):
    (trial,) = trials([task], 1)
    recording = demonstrate(SapienPoint(), trial)
    assert trial.task == task and trial.robot == "widowx"
    assert recording.successes[-1] and len(recording.actions) < trial.max_steps


def test_poses_are_those_of_the_environment():
    point = SapienPoint()
    point.reset(simpler_env_trials([CARROT], 1)[0])
    seen = poses(point.environment.unwrapped)
    for name in ("base", "target", "source", "destination"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(point.state, name).astype(np.float32))


class Place:
    """As SAPIEN's poses, without turns."""

    def __init__(self, p):
        self.p, self.q = np.array(p, np.float32), np.array([1, 0, 0, 0], np.float32)

    def inv(self) -> "Place":
        return Place(-self.p)

    def __mul__(self, other: "Place") -> "Place":
        return Place(self.p + other.p)


def test_hand_and_can_are_told_in_the_base_s_frame():
    agent = SimpleNamespace(robot=SimpleNamespace(pose=Place([1, 2, 3])), ee_pose=Place([1.5, 2, 4]))
    seen = grip(SimpleNamespace(agent=agent, obj_pose=Place([1, 2.5, 3.5])))
    np.testing.assert_array_equal(seen.hand, [0.5, 0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(seen.can, [0, 0.5, 0.5])


@pytest.mark.parametrize("task", STANDING_CANS)
def test_cans_are_tasks_of_the_google_robot(task):
    (trial,) = trials([task], 1)
    assert (trial.task, trial.robot, trial.options["build"]) == (task, "google_robot", {"upright": True})


def test_other_tasks_are_refused():
    (can,) = simpler_env_trials(["pick_coke_can/variant_aggregation/horizontal/base"], 1)
    with pytest.raises(ValueError, match="the scripted experts do put_spoon/visual_matching, .*; got 'pick_coke_can"):
        demonstrate(SapienPoint(), can)


@pytest.mark.slow
def test_in_simpler_env_its_command_records_a_success(tmp_path):
    try:
        python = simulator_python(BENCHMARK)
    except ValueError as error:
        pytest.skip(str(error))
    module = "instructvla.evaluation.simulators.simpler_env_demonstration"
    subprocess.run([python, "-m", module, CARROT, tmp_path], check=True, env=os.environ)
    (recording,) = load_recordings(tmp_path)
    assert recording.trial.task == CARROT and recording.successes[-1] and not recording.successes[0]
