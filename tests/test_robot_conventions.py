"""Rotations, gripper commands and proprioception against the released evaluation's numbers."""

import numpy as np
import pytest

from instructvla.evaluation.action_ensembling import AdaptiveEnsemble
from instructvla.evaluation.robot_conventions import (
    GoogleRobotGripper,
    axis_angle_to_intrinsic_euler,
    euler_to_axis_angle,
    google_robot_state,
    libero_gripper,
    matrix_to_euler,
    quaternion_to_axis_angle,
    quaternion_to_euler,
    quaternion_to_matrix,
    simpler_command,
    widowx_gripper,
    widowx_state,
)
from tests.parity import load_fixture

TOLERANCE = 1e-7  # float64; the released code's acos loses about 1e-8 near the identity
TENSORS, META = load_fixture("postprocess")
GOLDEN = {name: tensor.numpy() for name, tensor in TENSORS.items()}
EPISODES = [name for name in META if name.startswith("simpler.out.")]
NEW_TASK_STEP = 30


def assert_equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", EPISODES)
def test_simulator_commands_equal_the_released_ones(name):
    gripper = GoogleRobotGripper(META[name]["sticky_gripper_num_repeat"]) if "google" in name else widowx_gripper
    ensemble = AdaptiveEnsemble(META[name]["ensemble_horizon"], META[name]["alpha"])
    scale = float(name.rsplit("scale", 1)[1])
    for step, chunk in enumerate(GOLDEN["simpler.in.chunks"]):
        if step == NEW_TASK_STEP:
            ensemble.reset()
            if isinstance(gripper, GoogleRobotGripper):
                gripper.reset()
        action = ensemble(chunk)
        command = simpler_command(action, gripper, scale)
        assert_equal(np.concatenate([action, *command]), GOLDEN[name][step])


def test_euler_angles_give_the_released_axis_angle():
    assert_equal(euler_to_axis_angle(GOLDEN["euler2axangle.in"]), GOLDEN["euler2axangle.out"])


def test_libero_quaternions_give_the_released_axis_angle():
    actual = quaternion_to_axis_angle(GOLDEN["libero.quat2axisangle.in_xyzw"], "xyzw")
    assert_equal(actual, GOLDEN["libero.quat2axisangle.out"])


def test_libero_gripper_commands_equal_the_released_ones():
    actions = GOLDEN["libero.gripper.in"]
    np.testing.assert_array_equal(libero_gripper(actions[:, 6]), GOLDEN["libero.gripper.out"][:, 6])


@pytest.mark.parametrize("robot, state", [("widowx_bridge", widowx_state), ("google_robot", google_robot_state)])
def test_proprioception_equals_the_released_one(robot, state):
    assert_equal(state(GOLDEN[f"proprio.in.eef_pos.{robot}"]), GOLDEN[f"proprio.out.{robot}"])


def test_a_batch_of_rotations_equals_each_rotation_alone():
    quaternions = GOLDEN["libero.quat2axisangle.in_xyzw"].reshape(3, 4, 4)
    for function in (quaternion_to_axis_angle, quaternion_to_matrix, quaternion_to_euler):
        alone = [[function(quaternion, "xyzw") for quaternion in row] for row in quaternions]
        np.testing.assert_array_equal(function(quaternions, "xyzw"), alone)


def test_both_quaternion_orders_name_the_same_rotation():
    xyzw = GOLDEN["libero.quat2axisangle.in_xyzw"]
    wxyz = xyzw[:, [3, 0, 1, 2]]
    for function in (quaternion_to_axis_angle, quaternion_to_matrix, quaternion_to_euler):
        np.testing.assert_array_equal(function(wxyz, "wxyz"), function(xyzw, "xyzw"))


def test_a_matrix_turns_vectors_as_its_axis_angle_says():
    quarter_turn_about_z = np.array([0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    assert_equal(quaternion_to_axis_angle(quarter_turn_about_z, "xyzw"), [0, 0, np.pi / 2])
    assert_equal(quaternion_to_matrix(quarter_turn_about_z, "xyzw") @ [1, 0, 0], [0, 1, 0])


def test_euler_angles_rebuild_their_matrix():
    matrices = quaternion_to_matrix(GOLDEN["libero.quat2axisangle.in_xyzw"], "xyzw")
    half = matrix_to_euler(matrices)[..., None] / 2  # (rotations, axes, 1)
    about_each_axis = np.concatenate([np.sin(half) * np.eye(3), np.cos(half)], axis=-1)  # (rotations, axes, xyzw)
    roll, pitch, yaw = np.moveaxis(quaternion_to_matrix(about_each_axis, "xyzw"), 1, 0)
    assert_equal(yaw @ pitch @ roll, matrices)


def test_intrinsic_angles_rebuild_the_rotation_of_an_axis_angle():
    axis_angles = np.vstack([np.random.default_rng(0).uniform(-0.8, 0.8, (20, 3)), np.zeros(3)])
    for axis_angle, angles in zip(axis_angles, axis_angle_to_intrinsic_euler(axis_angles), strict=True):
        product = np.eye(3)
        for axis, angle in enumerate(angles):
            quaternion = np.append(np.cos(angle / 2), np.sin(angle / 2) * np.eye(3)[axis])
            product = product @ quaternion_to_matrix(quaternion, "wxyz")  # Rx · Ry · Rz
        half = np.linalg.norm(axis_angle) / 2
        wanted = np.append(np.cos(half), axis_angle / 2 * np.sinc(half / np.pi))
        assert_equal(product, quaternion_to_matrix(wanted, "wxyz"))


def test_gimbal_lock_puts_the_whole_turn_into_roll():
    assert_equal(matrix_to_euler([[0, 0, 1], [0, 1, 0], [-1, 0, 0]]), [0, np.pi / 2, 0])


def test_minus_identity_is_no_rotation():
    np.testing.assert_array_equal(quaternion_to_axis_angle([0, 0, 0, -1], "xyzw"), np.zeros(3))


def test_google_gripper_holds_a_command_for_ten_steps():
    gripper = GoogleRobotGripper()
    commands = [gripper(opening) for opening in [1.0] + [0.0] + [1.0] * 12]
    assert commands == [0.0] + [1.0] * 10 + [-1.0] * 3


def test_google_gripper_passes_small_changes_relative_to_the_last_latched_opening():
    gripper = GoogleRobotGripper()
    assert [gripper(opening) for opening in (1.0, 0.75, 0.5)] == [0.0, 0.25, 0.5]


def test_widowx_gripper_closes_at_exactly_one_half():
    np.testing.assert_array_equal(widowx_gripper([0.0, 0.5, 0.51, 1.0]), [-1, -1, 1, 1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: quaternion_to_matrix(np.zeros(4), "wxyz"), "norm 1"),
        (lambda: quaternion_to_axis_angle([0, 0, 0, 1.1], "xyzw"), "norm 1"),
        (lambda: quaternion_to_euler([0, 0, np.nan, 1], "xyzw"), "finite"),
        (lambda: quaternion_to_matrix(np.zeros(3), "wxyz"), r"shape \(..., 4\), got \(3,\)"),
        (lambda: quaternion_to_matrix([0, 0, 0, 1], "wxzy"), "'wxzy'"),
        (lambda: euler_to_axis_angle(0.5), r"shape \(..., 3\), got \(\)"),
        (lambda: matrix_to_euler(np.zeros(3)), r"shape \(..., 3, 3\), got \(3,\)"),
        (lambda: widowx_state(np.zeros(7)), r"shape \(..., 8\)"),
        (lambda: google_robot_state(np.zeros(8)), "norm 1"),
        (lambda: simpler_command(np.zeros((16, 7)), widowx_gripper), "one row"),
        (lambda: simpler_command(np.full(7, np.inf), widowx_gripper), "finite"),
        (lambda: widowx_gripper(np.nan), "finite"),
        (lambda: GoogleRobotGripper()(np.nan), "finite"),
        (lambda: GoogleRobotGripper(repeat=0), "at least 1 step"),
    ],
)
def test_a_reading_that_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
