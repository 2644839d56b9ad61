"""Joint angles for poses."""

import mujoco
import numpy as np
import pytest

from instructvla.evaluation.tabletop.arm import HOME, TCP
from instructvla.evaluation.tabletop.inverse_kinematics import (
    ArmKinematics,
    euler_xyz,
    multiply,
    quaternion_of_euler,
    quaternion_of_vector,
    rotation_between,
)
from tests.breakfast_scene import simulated


@pytest.fixture(scope="module")
def model():
    return simulated().model


@pytest.fixture(scope="module")
def kinematics(model):
    return ArmKinematics(model, 7, TCP, np.array(HOME))


CORNERS = [(x, y, z) for x in (0.30, 0.70) for y in (-0.35, 0.0, 0.35) for z in (0.02, 0.15, 0.28)]


@pytest.mark.parametrize("place", CORNERS)
@pytest.mark.parametrize("yaw", [-0.8, 0.0, 0.8])
def test_the_whole_workspace_is_reached(model, kinematics, place, yaw):
    target = quaternion_of_vector(np.array([0, 0, yaw]))
    angles = kinematics.solve(np.array(place), target, kinematics.solve(np.array([0.45, 0, 0.25]), target, HOME))
    data = mujoco.MjData(model)
    data.qpos[:7] = angles
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.site(TCP).xpos, place, atol=2e-3)
    low, high = model.jnt_range[:7].T
    assert (low <= angles).all() and (angles <= high).all()


def test_out_of_reach_is_never_further_than_the_start(model, kinematics):
    data, target = mujoco.MjData(model), np.array([0.9, 0.3, 0.6])
    start = kinematics.solve(np.array([0.6, 0.2, 0.3]), quaternion_of_vector(np.zeros(3)), np.array(HOME))
    angles = kinematics.solve(target, quaternion_of_vector(np.zeros(3)), start)
    data.qpos[:7] = angles
    mujoco.mj_forward(model, data)
    assert np.abs(data.site(TCP).xpos - target).max() <= 0.31
    low, high = model.jnt_range[:7].T
    assert (low <= angles).all() and (angles <= high).all()


def test_rotation_between_leads_from_one_orientation_to_the_other():
    one, two = quaternion_of_vector(np.array([0.3, -0.2, 0.5])), quaternion_of_vector(np.array([-0.1, 0.4, 0.2]))
    led = multiply(quaternion_of_vector(rotation_between(one, two)), one)
    assert abs(led @ two) == pytest.approx(1.0)


def test_euler_angles_are_roll_pitch_and_yaw_about_fixed_axes():
    turns = [quaternion_of_vector(np.eye(3)[axis] * angle) for axis, angle in enumerate((0.1, -0.2, 0.7))]
    orientation = multiply(turns[2], multiply(turns[1], turns[0]))
    assert euler_xyz(orientation) == pytest.approx((0.1, -0.2, 0.7))
    np.testing.assert_allclose(quaternion_of_euler(0.1, -0.2, 0.7), orientation, atol=1e-12)
