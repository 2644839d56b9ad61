"""Claims about the scripted expert, on a point that carries objects; `test_maniskill3_simulator` has the real thing."""

from types import SimpleNamespace

import numpy as np
import pytest

from instructvla.evaluation.chunk_schedules import OpenLoop
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.robot_conventions import quaternion_to_matrix
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.maniskill3_benchmark import maniskill3_trials
from instructvla.evaluation.simulators.maniskill3_expert import STEP_M, STEP_RAD, demonstrate, turn_across
from instructvla.evaluation.simulators.maniskill3_state import BridgeState
from instructvla.evaluation.simulators.maniskill3_tasks import TASKS
from tests.bridge_stand_in import CarryingPoint


@pytest.mark.parametrize("task", TASKS)
def test_it_takes_the_object_to_its_destination_in_time(task):
    for trial in maniskill3_trials([task], 6):
        recording, seen = demonstrate(CarryingPoint(), trial)
        assert recording.successes[-1] and len(recording.actions) < trial.max_steps
        assert len(seen) == len(recording.actions) + 1


def test_its_actions_are_small_and_it_stays_in_the_end():
    recording, _ = demonstrate(CarryingPoint(), maniskill3_trials(["spoon"], 1)[0])
    assert np.linalg.norm(recording.actions[:, :3], axis=1).max() <= STEP_M + 1e-6
    assert np.abs(recording.actions[:, 3:6]).max() <= STEP_RAD + 1e-6
    assert set(recording.actions[:, 6]) == {0.0, 1.0}
    np.testing.assert_array_equal(recording.actions[-1], [0, 0, 0, 0, 0, 0, 1])


def test_the_fingers_close_across_the_object():
    for trial in maniskill3_trials(["spoon"], 8):
        state = BridgeState.of_vector(CarryingPoint().reset(trial).state)
        turn = turn_across(state)
        assert abs(turn) <= np.pi / 2
        about_z = quaternion_to_matrix([np.cos(turn / 2), 0, 0, np.sin(turn / 2)], "wxyz")
        fingers = about_z @ quaternion_to_matrix(state.target[3:], "wxyz")[:, 1]
        base, source = (quaternion_to_matrix(pose[3:], "wxyz") for pose in (state.base, state.source))
        assert abs(fingers @ base.T @ source[:, 0]) < 1e-6


class Repeats:
    """Answers with recorded actions, one at a time."""

    def __init__(self, actions):
        self.actions = iter(actions)

    def act(self, images, instruction, **options):
        return SimpleNamespace(actions=next(self.actions)[None], response=None)


def test_its_actions_replayed_through_the_executor_do_the_same():
    trial = maniskill3_trials(["carrot"], 1)[0]
    recording, _ = demonstrate(CarryingPoint(), trial)
    executor, simulator = Executor(Repeats(recording.actions), find_robot("widowx"), OpenLoop(1)), CarryingPoint()
    observation = simulator.reset(trial)
    executor.reset(observation.instruction)
    for state in recording.states[1:]:
        observation = simulator.step(executor.step(observation.images, observation.proprioception).command)
        np.testing.assert_array_equal(observation.state, state)
    assert observation.success
