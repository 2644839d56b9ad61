"""LIBERO's adapter: around a stand-in for its environment; `test_libero_bare_loop` compares it with the real one."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from instructvla.evaluation.policy_images import libero_frame
from instructvla.evaluation.simulators.libero_benchmark import BENCHMARK, libero_trials
from instructvla.evaluation.simulators.libero_simulator import LiberoSimulator
from instructvla.evaluation.simulators.simulator import Trial
from tests.libero_installation import libero_python

TASK = "turn_on_the_stove"
RNG = np.random.default_rng(0)
PICTURES = {name: RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8) for name in ("agentview", "robot0_eye_in_hand")}
HALF_TURN_ABOUT_X = np.array([1.0, 0.0, 0.0, 0.0])  # xyzw


class NoRoomError(Exception):
    pass


class StandInEnvironment:
    """Remembers what is done to it; `crowded` resets fail before one succeeds."""

    def __init__(self, crowded: int):
        self.crowded, self.done = crowded, []
        self.env = SimpleNamespace(reset=self.reset)
        self.sim = SimpleNamespace(data=SimpleNamespace(qacc_warmstart=np.array([7.0])))

    def seed(self, seed: int) -> None:
        self.done.append(("seed", seed))

    def reset(self) -> None:
        self.crowded -= 1
        if self.crowded >= 0:
            raise NoRoomError("cannot place all objects")
        self.done.append(("reset",))

    def set_init_state(self, state: np.ndarray) -> None:
        self.done.append(("state", *state))

    def step(self, command: np.ndarray) -> tuple[dict, float, bool, dict]:
        self.done.append(("step", *command))
        seen = {f"{name}_image": picture for name, picture in PICTURES.items()} | {
            "robot0_eef_pos": np.array([0.1, 0.2, 0.3]),
            "robot0_eef_quat": HALF_TURN_ABOUT_X,
            "robot0_gripper_qpos": np.array([0.04, -0.04]),
        }
        return seen, 1.0, True, {}

    def get_sim_state(self) -> np.ndarray:
        return np.arange(3.0)

    def close(self) -> None:
        self.done.append(("close",))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    for name in ("bddl", "states"):
        (tmp_path / name / "libero_goal").mkdir(parents=True)
    (tmp_path / "bddl/libero_goal" / f"{TASK}.bddl").touch()
    np.savez(tmp_path / "states/libero_goal" / f"{TASK}.pruned_init.npz", states=np.arange(50.0)[:, None])
    return tmp_path / "bddl", tmp_path / "states"


def simulator_of(folders: tuple[Path, Path], crowded: int = 0) -> LiberoSimulator:
    return LiberoSimulator(lambda bddl_file: StandInEnvironment(crowded), *folders, NoRoomError, {})


def trial(index: int = 0, task: str = TASK) -> Trial:
    return libero_trials([task], index + 1)[-1]


def test_an_episode_starts_from_its_initial_state_and_settles_for_ten_steps(folders):
    simulator = simulator_of(folders)
    simulator.reset(trial(3))
    stand_still = ("step", 0, 0, 0, 0, 0, 0, -1)
    assert simulator.environment.done == [("seed", 3), ("reset",), ("state", 3.0), *[stand_still] * 10]


def test_initial_states_repeat_with_other_seeds(folders):
    simulator = simulator_of(folders)
    simulator.reset(trial(53))
    assert simulator.environment.done[:3] == [("seed", 53), ("reset",), ("state", 3.0)]


def test_each_trial_has_an_environment_of_its_own(folders):
    simulator = simulator_of(folders)
    simulator.reset(trial())
    first = simulator.environment
    simulator.reset(trial(1))
    assert simulator.environment is not first and first.done[-1] == ("close",)


def test_the_policy_sees_the_released_pictures_and_state(folders):
    seen = simulator_of(folders).reset(trial())
    assert list(seen.images) == ["primary", "wrist"]
    np.testing.assert_array_equal(seen.images["primary"], libero_frame(PICTURES["agentview"]))
    np.testing.assert_array_equal(seen.images["wrist"], libero_frame(PICTURES["robot0_eye_in_hand"]))
    np.testing.assert_allclose(seen.proprioception, [0.1, 0.2, 0.3, np.pi, 0, 0, 0.04, -0.04])
    assert seen.instruction == "turn on the stove"


def test_steps_give_state_reward_and_success(folders):
    simulator = simulator_of(folders)
    simulator.reset(trial())
    seen = simulator.step(np.full(7, 0.5))
    assert simulator.environment.done[-1] == ("step", *[0.5] * 7)
    assert (seen.reward, seen.success, seen.done) == (1.0, True, False)
    np.testing.assert_array_equal(seen.state, [0, 1, 2, 7])


def test_a_scene_without_room_is_drawn_again(folders):
    simulator = simulator_of(folders, crowded=2)
    simulator.reset(trial())
    assert ("reset",) in simulator.environment.done


def test_a_scene_that_never_has_room_is_refused(folders):
    with pytest.raises(ValueError, match="no room for the objects in 20 drawn scenes: cannot place all objects"):
        simulator_of(folders, crowded=1000).reset(trial())


def test_a_task_without_its_files_is_refused(folders):
    with pytest.raises(ValueError, match="'libero_goal' has no put_the_bowl_on_the_plate.bddl; check the names"):
        simulator_of(folders).reset(trial(task="put_the_bowl_on_the_plate"))


def test_an_initial_state_that_was_not_recorded_is_refused(folders):
    beyond = Trial(TASK, 0, 0, "libero", 10, options={"suite": "libero_goal", "initial_state": 50})
    with pytest.raises(ValueError, match="turn_on_the_stove has initial states 0 to 49, got 50"):
        simulator_of(folders).reset(beyond)


@pytest.mark.slow
def test_a_renderer_that_cannot_start_is_refused():
    code = f"from {BENCHMARK.adapter} import make_simulator; make_simulator()"
    env = os.environ | {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"}
    ran = subprocess.run([libero_python(), "-c", code], env=env, capture_output=True, text=True)
    assert "ValueError: LIBERO cannot render with MUJOCO_GL='egl'" in ran.stderr
