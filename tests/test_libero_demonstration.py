"""The scripted expert: in a stand-in world of points, and in LIBERO, where its recording must succeed again."""

import os
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from instructvla.evaluation.episode import run_episode
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.recordings import Recording, load_recordings
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.libero_benchmark import BENCHMARK, libero_trials
from instructvla.evaluation.simulators.libero_demonstration import demonstrate
from instructvla.evaluation.simulators.simulator import Observation, Trial
from tests.libero_installation import libero_process, libero_python

MILK = libero_trials(["pick_up_the_milk_and_place_it_in_the_basket"], 1)[0]
HORIZON = 8


class PointWorld:
    """A gripper without mass moves by 0.05 m for a command of 1 and carries what it closes upon."""

    def __init__(self, goals=("milk_1", "basket_1")):
        self.places = np.array([[0.1, -0.2, 0.0], [0.0, 0.26, 0.0]])
        self.environment = SimpleNamespace(
            obj_of_interest=list(goals),
            env=SimpleNamespace(obj_body_id={name: number for number, name in enumerate(goals)}),
            sim=SimpleNamespace(data=SimpleNamespace(body_xpos=self.places)),
        )

    def reset(self, trial: Trial) -> Observation:
        self.gripper, self.holds = np.array([-0.1, 0.0, 0.3]), False
        return self._observation()

    def step(self, command: np.ndarray) -> Observation:
        assert np.abs(command).max() <= 1
        milk, closes = self.places[0], command[6] > 0
        self.holds = closes and (self.holds or np.linalg.norm(self.gripper - milk) < 0.02)
        self.gripper = self.gripper + 0.05 * command[:3]
        if self.holds:
            milk[:] = self.gripper
        elif np.linalg.norm(milk[:2] - self.places[1, :2]) < 0.06:
            milk[2] = 0.0
        return self._observation()

    def _observation(self) -> Observation:
        milk, basket = self.places
        in_basket = np.linalg.norm(milk - basket) < 0.06
        return Observation({}, "", np.append(self.gripper, np.zeros(5)), milk.copy(), success=bool(in_basket))


class Replayed:
    """Answers with a recording's actions, a chunk at a time."""

    def __init__(self, actions: np.ndarray):
        self.chunks = (actions[start : start + HORIZON] for start in range(0, len(actions), HORIZON))

    def act(self, images, instruction, **options):
        return SimpleNamespace(actions=next(self.chunks), response=None)


def episode(simulator, actions: np.ndarray) -> Recording:
    executor = Executor(Replayed(actions), find_robot("libero"))
    return run_episode(simulator, executor, MILK, PolicyNeeds(("primary",), False, ()))[1]


def test_the_expert_carries_the_object_into_the_basket():
    recording = demonstrate(PointWorld(), MILK)
    assert recording.successes[-1] and not recording.successes[:-1].any()
    assert set(recording.actions[:, 6]) == {0.0, 1.0}


def test_other_tasks_are_refused():
    with pytest.raises(ValueError, match="puts one object into the basket; .* is about plate_1, stove_1"):
        demonstrate(PointWorld(("plate_1", "stove_1")), MILK)


@pytest.mark.slow
def test_in_libero_the_recorded_success_succeeds_again_and_chance_fails(tmp_path):
    command = [libero_python(), "-m", "instructvla.evaluation.simulators.libero_demonstration", MILK.task, tmp_path]
    subprocess.run(command, check=True, env=os.environ | BENCHMARK.installation.environment)
    (recording,) = load_recordings(tmp_path)
    rng, robot = np.random.default_rng(0), find_robot("libero")
    with libero_process() as simulator:
        assert recording.differences(episode(simulator, recording.actions)) == []
        by_chance = episode(simulator, np.stack([robot.random_action(rng) for _ in range(MILK.max_steps)]))
    assert recording.successes[-1] and not by_chance.successes.any()
