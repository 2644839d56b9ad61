"""The robot's MJCF."""

import mujoco
import numpy as np
import pytest

from instructvla.evaluation.tabletop.arm import ARM_JOINTS, FINGER_TRAVEL, HOME, PADS, TCP, WRIST_CAMERA
from tests.breakfast_scene import simulated


@pytest.fixture(scope="module")
def robot():
    return simulated()


def test_arm_has_seven_joints_and_a_gripper_of_ten_centimetres(robot):
    assert [robot.model.joint(i).name for i in range(7)] == list(ARM_JOINTS)
    apart = np.subtract(*(robot.data.geom(pad).xpos for pad in PADS))
    inner = np.linalg.norm(apart) - 2 * robot.model.geom(PADS[0]).size[1]
    assert inner == pytest.approx(2 * FINGER_TRAVEL, abs=2e-3)


def test_home_is_within_the_joints_limits(robot):
    low, high = robot.model.jnt_range[:7].T
    assert (low < HOME).all() and (high > HOME).all()


def test_gripper_points_down_with_its_frame_along_the_base_s(robot):
    np.testing.assert_allclose(robot.data.site(TCP).xmat.reshape(3, 3), np.eye(3), atol=0.01)


def test_tool_centre_is_between_the_pads(robot):
    middle = np.mean([robot.data.geom(pad).xpos for pad in PADS], axis=0)
    np.testing.assert_allclose(robot.data.site(TCP).xpos, middle, atol=2e-3)


def test_wrist_camera_sees_the_tool_centre(robot):
    camera = robot.data.camera(WRIST_CAMERA)
    towards = robot.data.site(TCP).xpos - camera.xpos
    looks = -camera.xmat.reshape(3, 3)[:, 2]
    half_view = np.radians(robot.model.camera(WRIST_CAMERA).fovy[0]) / 2
    assert np.arccos(towards @ looks / np.linalg.norm(towards)) < half_view


def test_links_do_not_collide(robot):
    model = robot.model
    for i in range(model.ngeom):
        name = model.body(model.geom_bodyid[i]).name
        if name.startswith("link") or name == "base":
            assert model.geom_contype[i] == 0, name
    assert mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "hand") > 0
