"""The physics of a scene."""

import numpy as np
import pytest

from instructvla.evaluation.tabletop.simulation import LARGEST_ANGLES, LARGEST_MOVE, WORKSPACE
from tests.breakfast_scene import OPEN, START, simulated

STAY = np.array([0, 0, 0, 0, 0, 0, 1.0])


def action(dx=0.0, dy=0.0, dz=0.0, yaw=0.0, gripper=1.0):
    return np.array([dx, dy, dz, 0, 0, yaw, gripper])


def moved(simulation, *actions):
    for one in actions:
        simulation.step(one)
    return simulation.state()


def test_gripper_starts_where_it_is_told_to():
    np.testing.assert_allclose(simulated().state().tcp, (*START[:3], 0, 0, 0), atol=3e-3)


def test_a_move_goes_as_far_as_it_says():
    state = moved(simulated(), action(0.04, -0.03, 0.02), STAY)
    np.testing.assert_allclose(np.subtract(state.tcp[:3], START[:3]), (0.04, -0.03, 0.02), atol=3e-3)


def test_a_turn_about_the_vertical_turns_the_gripper():
    assert moved(simulated(), action(yaw=0.2), STAY).tcp[5] == pytest.approx(0.2, abs=0.01)


def test_moves_are_clipped():
    state = moved(simulated(), action(dx=1.0), STAY)
    assert state.tcp[0] - START[0] == pytest.approx(LARGEST_MOVE, abs=3e-3)


def test_the_gripper_stays_in_the_workspace():
    state = moved(simulated(), *[action(dz=-0.05)] * 9)
    assert state.tcp[2] == pytest.approx(WORKSPACE[0, 2], abs=3e-3)


def test_the_gripper_tilts_and_turns_only_so_far():
    state = moved(simulated(), *[np.array([0, 0, 0, 0.25, 0, 0.25, 1.0])] * 12)
    assert np.abs(state.tcp[3:5]).max() < LARGEST_ANGLES[0] + 0.02
    assert state.tcp[5] < LARGEST_ANGLES[2] + 0.02


def test_the_gripper_closes_within_two_steps():
    simulation = simulated()
    assert moved(simulation, *[action(gripper=0.0)] * 2).gripper < 0.02
    assert moved(simulation, STAY, STAY).gripper > 0.98


@pytest.mark.parametrize("aside", [(0.0, 0.0), (0.015, 0.0), (0.0, 0.015), (-0.01, -0.01)])
def test_an_apple_is_held_also_when_the_gripper_comes_down_beside_its_middle(aside):
    simulation = simulated(start=(0.52 + aside[0], 0.02 + aside[1], 0.12, 0.0))
    state = moved(simulation, *[action(dz=-0.05)] * 2, *[action(gripper=0.0)] * 2, *[action(dz=0.05, gripper=0.0)] * 2)
    assert state.held() == "apple"
    assert state.objects["apple"].z > 0.08 and state.objects["apple"].support is None
    assert state.grip_force > 0.5


@pytest.mark.parametrize("error", [-0.3, 0.0, 0.3])
def test_a_spoon_is_held_also_when_the_wrist_is_turned_wrongly(error):
    simulation = simulated(start=(0.60, 0.16, 0.12, -0.4 + error))
    state = moved(simulation, *[action(dz=-0.05)] * 2, *[action(gripper=0.0)] * 2, *[action(dz=0.05, gripper=0.0)] * 2)
    assert state.held() == "spoon"


def test_a_thing_let_go_over_a_bowl_is_supported_by_it():
    simulation = simulated()
    joint = simulation.data.joint("thing0")
    joint.qpos[:3] = (0.50, -0.19, 0.06)
    state = moved(simulation, *[STAY] * 3)
    assert state.objects["apple"].support == "white bowl" and state.objects["apple"].still


def test_a_thing_in_the_open_drawer_is_supported_by_it():
    simulation = simulated(OPEN)
    simulation.data.joint("thing0").qpos[:3] = simulation.state().drawer_middle + np.array([0, 0, 0.04])
    assert moved(simulation, *[STAY] * 3).objects["apple"].support == "drawer"


def test_state_without_a_cabinet_has_no_drawer():
    state = simulated().state()
    assert state.drawer is None and state.handle is None and state.drawer_middle is None


def test_same_actions_give_the_same_state():
    actions = [action(0.03, 0.01, -0.02, 0.1)] * 5
    assert moved(simulated(), *actions) == moved(simulated(), *actions)
