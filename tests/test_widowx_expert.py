"""Claims about the scripted expert for the WidowX, on a point that carries objects."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from instructvla.evaluation.chunk_schedules import OpenLoop
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.robot_conventions import quaternion_to_matrix
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.demonstration import demonstrate
from instructvla.evaluation.simulators.maniskill3_benchmark import maniskill3_trials
from instructvla.evaluation.simulators.maniskill3_expert import poses
from instructvla.evaluation.simulators.widowx_expert import STEP_M, STEP_RAD, Expert, Handling, turn_across
from tests.bridge_stand_in import REACH, CarryingPoint

SPOON, CARROT = (maniskill3_trials([task], 1)[0] for task in ("spoon", "carrot"))
USUAL = Handling(0.05)


def test_its_actions_are_small_and_it_stays_in_the_end():
    recording, _ = demonstrate(CarryingPoint(), SPOON, partial(Expert, USUAL), poses)
    assert np.linalg.norm(recording.actions[:, :3], axis=1).max() <= STEP_M + 1e-6
    assert np.abs(recording.actions[:, 3:6]).max() <= STEP_RAD + 1e-6
    assert set(recording.actions[:, 6]) == {0.0, 1.0}
    np.testing.assert_array_equal(recording.actions[-1], [0, 0, 0, 0, 0, 0, 1])


def test_the_fingers_close_across_the_object():
    for trial in maniskill3_trials(["spoon"], 8):
        state = poses(CarryingPoint().reset(trial))
        turn = turn_across(state)
        assert abs(turn) <= np.pi / 2
        about_z = quaternion_to_matrix([np.cos(turn / 2), 0, 0, np.sin(turn / 2)], "wxyz")
        fingers = about_z @ quaternion_to_matrix(state.target[3:], "wxyz")[:, 1]
        base, source = (quaternion_to_matrix(pose[3:], "wxyz") for pose in (state.base, state.source))
        assert abs(fingers @ base.T @ source[:, 0]) < 1e-6


def test_an_object_without_a_length_is_taken_without_a_turn():
    recording, _ = demonstrate(CarryingPoint(), SPOON, partial(Expert, Handling(0.05, long=False)), poses)
    assert recording.successes[-1] and not recording.actions[:, 3:6].any()


def test_it_can_grasp_above_the_centre():
    def lowest(handling: Handling) -> float:
        _, seen = demonstrate(CarryingPoint(), SPOON, partial(Expert, handling), poses)
        return min(poses(one).target[2] for one in seen[: len(seen) // 2])

    above = REACH / 2
    assert abs(lowest(Handling(0.05, grasp_m=above)) - lowest(USUAL) - above) < 1e-9


class Repeats:
    """Answers with recorded actions, one at a time."""

    def __init__(self, actions):
        self.actions = iter(actions)

    def act(self, images, instruction, **options):
        return SimpleNamespace(actions=next(self.actions)[None], response=None)


def test_its_actions_replayed_through_the_executor_do_the_same():
    recording, _ = demonstrate(CarryingPoint(), CARROT, partial(Expert, USUAL), poses)
    executor, simulator = Executor(Repeats(recording.actions), find_robot("widowx"), OpenLoop(1)), CarryingPoint()
    observation = simulator.reset(CARROT)
    executor.reset(observation.instruction)
    for state in recording.states[1:]:
        observation = simulator.step(executor.step(observation.images, observation.proprioception).command)
        np.testing.assert_array_equal(observation.state, state)
    assert observation.success
