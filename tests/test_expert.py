"""The scripted expert."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.expert import AIM, Expert, grasp_yaw, nearest_to_zero, towards
from instructvla.evaluation.tabletop.sampling import SPLITS
from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.shapes import shape_of
from instructvla.evaluation.tabletop.simulation import LARGEST_MOVE
from tests.breakfast_scene import breakfast, simulated


@pytest.fixture(scope="module")
def env():
    return gymnasium.make(ENVIRONMENT, cameras=())


def solved_in(env, options, noise=0.0, disturb=None, seed=0):
    """Steps to success, or None."""
    _, info = env.reset(seed=seed, options=options)
    expert = Expert(info["scene"], info["task"], noise, seed)
    for step in range(1, 81):
        if disturb is not None:
            disturb(step, env.unwrapped)
        if env.step(expert.perturbed(expert.act(env.unwrapped.state())))[2]:
            return step
    return None


@pytest.mark.parametrize("skill", Skill)
@pytest.mark.parametrize("split", SPLITS)
def test_every_skill_is_solved_quickly(env, split, skill):
    for seed in range(3):
        steps = solved_in(env, {"split": split, "skill": skill}, seed=seed)
        assert steps is not None and steps <= 45


@pytest.mark.parametrize("skill", Skill)
def test_noise_of_a_centimetre_is_corrected(env, skill):
    solved = [solved_in(env, {"skill": skill}, noise=0.01, seed=seed) is not None for seed in range(4)]
    assert sum(solved) >= 3


def test_a_thing_that_is_moved_away_is_followed(env):
    def push(step, world):
        if step == 4:
            world.simulation.data.joint("thing0").qpos[:2] = (0.60, 0.02)

    assert solved_in(env, {"scene": breakfast(), "task": Task(Skill.PICK_UP, "apple")}, disturb=push)


def test_a_thing_that_slips_away_is_taken_again(env):
    def snatch(step, world):
        if step == 9:
            world.simulation.data.joint("thing0").qpos[:3] = (0.60, 0.02, 0.03)

    options = {"scene": breakfast(), "task": Task(Skill.PUT_IN, "apple", "white bowl")}
    undisturbed = solved_in(env, options)
    assert undisturbed > 9 and solved_in(env, options, disturb=snatch) > undisturbed


def test_a_fallen_bottle_is_picked_up(env):
    def topple(step, world):
        if step == 1:
            world.simulation.data.joint("thing1").qpos[2:7] = (0.03, np.sqrt(0.5), 0, np.sqrt(0.5), 0)

    assert solved_in(env, {"scene": breakfast(), "task": Task(Skill.PICK_UP, "water bottle")}, disturb=topple)


def test_the_action_depends_on_the_state_alone():
    state, scene, task = simulated().state(), breakfast(), Task(Skill.PICK_UP, "apple")
    one, two = Expert(scene, task), Expert(scene, task)
    two.act(replace(state, tcp=(0.6, 0.2, 0.1, 0, 0, 0)))
    np.testing.assert_array_equal(one.act(state), two.act(state))


def test_noise_leaves_gripper_roll_and_pitch_alone():
    expert = Expert(breakfast(), Task(Skill.PICK_UP, "apple"), noise=0.01, seed=1)
    noise = np.array([expert.perturbed(np.zeros(7)) for _ in range(500)])
    np.testing.assert_allclose(noise.std(axis=0)[:3], 0.01, rtol=0.15)
    assert (noise[:, [3, 4, 6]] == 0).all()


def test_the_gripper_comes_down_only_near_its_goal():
    state = replace(simulated().state(), tcp=(0.4, 0.0, 0.15, 0, 0, 0))
    far, near = towards(state, (0.6, 0.0, 0.03), height=0.15), towards(state, (0.4 + AIM / 2, 0, 0.03), height=0.15)
    assert far[2] == pytest.approx(0.0) and far[0] == pytest.approx(LARGEST_MOVE)
    assert near[2] == pytest.approx(-LARGEST_MOVE)


def test_a_low_gripper_goes_up_before_it_goes_across():
    state = replace(simulated().state(), tcp=(0.4, 0.0, 0.02, 0, 0, 0))
    move = towards(state, (0.6, 0.0, 0.03), height=0.15)
    assert move[0] == 0 and move[2] == pytest.approx(LARGEST_MOVE)


def test_long_things_are_taken_across_and_round_ones_straight():
    state = simulated().state()
    assert grasp_yaw(state, state.objects["spoon"], shape_of("spoon")) == pytest.approx(-0.4, abs=0.02)
    assert grasp_yaw(state, replace(state.objects["apple"], yaw=1.0), shape_of("apple")) == pytest.approx(0, abs=0.02)


def test_angles_are_taken_within_half_a_period():
    assert nearest_to_zero(3.0, np.pi) == pytest.approx(3.0 - np.pi)
    assert nearest_to_zero(0.3, np.pi / 2) == pytest.approx(0.3)
