"""The Gymnasium environment."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.world import Tabletop
from instructvla.evaluation.tabletop.world_state import STATE_NAMES
from tests.breakfast_scene import breakfast

STAY = np.array([0, 0, 0, 0, 0, 0, 1.0])
PICK = {"scene": breakfast(), "task": Task(Skill.PICK_UP, "apple")}


@pytest.fixture(scope="module")
def env():
    made = gymnasium.make(ENVIRONMENT, image_size=48)
    yield made
    made.close()


def test_gymnasium_finds_the_environment_by_its_module_and_name():
    made = gymnasium.make(f"instructvla.evaluation.tabletop:{ENVIRONMENT}")
    assert isinstance(made.unwrapped, Tabletop) and ENVIRONMENT == "instructvla/Tabletop-v0"


def test_observations_are_in_the_announced_space(env):
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.observation_space.contains(env.step(STAY)[0])
    assert info["instruction"] == info["task"].instruction() and info["success"] is False


def test_state_is_the_gripper_s_pose_opening_and_force(env):
    observation, _ = env.reset(seed=0)
    state = env.unwrapped.state()
    np.testing.assert_allclose(observation["state"], [*state.tcp, state.gripper, state.grip_force], atol=1e-6)
    assert len(STATE_NAMES) == 8 and observation["state"][6] == pytest.approx(1.0, abs=0.01)


def test_same_seed_gives_the_same_episode(env):
    runs = []
    for _ in range(2):
        first, info = env.reset(seed=4, options={"split": "test"})
        last = env.step(np.array([0.03, 0.02, -0.04, 0, 0, 0.1, 0]))[0]
        runs.append((first, last, info["scene"], info["task"]))
    for one, two in zip(*[run[:2] for run in runs], strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    assert runs[0][2:] == runs[1][2:]


DIGEST = """
import gymnasium, hashlib
from instructvla.evaluation.tabletop import ENVIRONMENT
env = gymnasium.make(ENVIRONMENT, image_size=48)
observation, info = env.reset(seed=7)
digest = hashlib.sha256()
for _ in range(3):
    observation = env.step([0.03, 0.02, -0.04, 0, 0, 0.1, 0])[0]
    for name in sorted(observation):
        digest.update(observation[name].tobytes())
digest.update(repr(info["scene"]).encode())
import sys
sys.stdout.write(digest.hexdigest())
"""


def test_other_processes_make_the_same_episode():
    one, two = (
        subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert len(one) == 64 and one == two


def test_without_seed_episodes_go_on_from_the_last_one(env):
    env.reset(seed=0)
    following = [env.reset()[1]["scene"] for _ in range(2)]
    env.reset(seed=0)
    assert [env.reset()[1]["scene"] for _ in range(2)] == following
    assert following[0] != following[1]


def test_splits_differ_for_one_seed(env):
    scenes = [
        env.reset(seed=0, options={"split": split, "skill": Skill.OPEN})[1]["scene"] for split in ("train", "test")
    ]
    assert {placed.position for placed in scenes[0].things}.isdisjoint({placed.position for placed in scenes[1].things})


def test_a_scene_and_task_of_one_s_own_are_taken(env):
    _, info = env.reset(seed=0, options=PICK)
    assert info["scene"] == PICK["scene"] and info["instruction"] == "pick up the apple"


def test_episodes_are_truncated():
    env = gymnasium.make(ENVIRONMENT, cameras=(), max_steps=2)
    env.reset(seed=0, options=PICK)
    assert env.step(STAY)[2:4] == (False, False)
    assert env.step(STAY)[2:4] == (False, True)


def test_success_rewards_once_and_ends_the_episode():
    env = gymnasium.make(ENVIRONMENT, cameras=())
    env.reset(seed=0, options={"scene": breakfast(1.0), "task": Task(Skill.CLOSE, "drawer")})
    env.unwrapped.simulation.data.joint("drawer").qpos[:] = 0
    _, reward, terminated, truncated, info = env.step(STAY)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_no_camera_draws_no_picture():
    env = gymnasium.make(ENVIRONMENT, cameras=())
    observation, _ = env.reset(seed=0)
    assert list(observation) == ["state"]


def test_render_gives_a_film_frame():
    env = gymnasium.make(ENVIRONMENT, cameras=(), render_mode="rgb_array", film_size=96)
    env.reset(seed=0)
    assert env.render().shape == (96, 96, 3)
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 2}, "no option speed; there are split, skill, scene, task"),
        ({"split": "validation"}, "no split 'validation'; there are train, test"),
        ({"skill": "juggle"}, "no skill 'juggle'; there are pick up, put in"),
        ({"scene": breakfast()}, "give both"),
        ({**PICK, "split": "train"}, "either a scene and its task"),
        ({**PICK, "task": "pick up the apple"}, "task must be a Task"),
        ({**PICK, "task": Task(Skill.PICK_UP, "pear")}, "it can: apple, water bottle"),
    ],
)
def test_wrong_options_are_refused(env, options, message):
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0, options=options)


@pytest.mark.parametrize("action", [[0.0] * 6, [0.0] * 6 + [np.nan]])
def test_wrong_actions_are_refused(env, action):
    env.reset(seed=0, options=PICK)
    with pytest.raises(ValueError, match="7 finite numbers"):
        env.step(np.array(action))


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(ValueError, match="call reset first"):
        gymnasium.make(ENVIRONMENT).step(STAY)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cameras": ("side",)}, "no camera side; there are front, wrist"),
        ({"image_size": 5000}, "image_size must be 16 to 512 px"),
        ({"film_size": 8}, "film_size must be"),
        ({"render_mode": "human"}, "render_mode"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Tabletop(**settings)
