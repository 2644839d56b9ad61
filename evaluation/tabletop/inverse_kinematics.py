"""Joint angles for a pose of the gripper: damped least squares, with the free joint drawn towards a rest posture."""

import mujoco
import numpy as np

DAMPING = 1e-4
REST_PULL = 0.05
LARGEST_STEP = 0.3  # rad per iteration
ITERATIONS = 25
TOLERANCE = 2e-4  # m and rad


class ArmKinematics:
    """Solves for one model's arm.

    Args:
        model: with the arm's joints first.
        joints: how many joints the arm has.
        site: name of the tool centre point.
        rest: (joints,) posture that the solution stays near, in rad.
    """

    def __init__(self, model: mujoco.MjModel, joints: int, site: str, rest: np.ndarray):
        self._model, self._joints, self._rest = model, joints, np.asarray(rest)
        self._site = model.site(site).id
        self._data = mujoco.MjData(model)
        self._jacobian = np.zeros((6, model.nv))
        self._low, self._high = model.jnt_range[:joints].T

    def solve(self, position: np.ndarray, quaternion: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Angles (joints,) in rad that bring the tool centre point to a pose; out of reach, the nearest that were met.

        Args:
            position: (3,) m.
            quaternion: (4,) w, x, y, z.
            start: (joints,) angles to start from.
        """
        angles = np.array(start, dtype=float)
        best, least = angles, np.inf
        for _ in range(ITERATIONS):
            error = self._error(angles, position, quaternion)
            if np.abs(error).max() < least:
                best, least = angles, np.abs(error).max()
            if least < TOLERANCE:
                break
            angles = np.clip(angles + self._step(angles, error), self._low, self._high)
        return best

    def _error(self, angles: np.ndarray, position: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
        """(6,): translation in m, then rotation in rad, that are missing."""
        data = self._data
        data.qpos[: self._joints] = angles
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)
        error = np.empty(6)
        error[:3] = position - data.site_xpos[self._site]
        error[3:] = rotation_between(matrix_to_quaternion(data.site_xmat[self._site]), quaternion)
        return error

    def _step(self, angles: np.ndarray, error: np.ndarray) -> np.ndarray:
        mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        jacobian = self._jacobian[:, : self._joints]  # (6, joints)
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING * np.eye(6))  # (joints, 6)
        pull = REST_PULL * (self._rest - angles)
        return np.clip(inverse @ error + pull - inverse @ (jacobian @ pull), -LARGEST_STEP, LARGEST_STEP)


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """(4,) w, x, y, z of a rotation matrix of 9 numbers."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ravel(matrix))
    return quaternion


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rotation `right`, then `left`: (4,) w, x, y, z."""
    product = np.empty(4)
    mujoco.mju_mulQuat(product, left, right)
    return product


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(3,) rotation vector in rad, in the base's frame, that leads from one quaternion to another."""
    backwards, vector = np.empty(4), np.empty(3)
    mujoco.mju_negQuat(backwards, start)
    mujoco.mju_quat2Vel(vector, multiply(end, backwards), 1.0)
    return vector


def quaternion_of_vector(vector: np.ndarray) -> np.ndarray:
    """(4,) w, x, y, z of a rotation vector in rad."""
    quaternion = np.array([1.0, 0.0, 0.0, 0.0])
    angle = float(np.linalg.norm(vector))
    if angle > 1e-9:
        mujoco.mju_axisAngle2Quat(quaternion, np.asarray(vector, float) / angle, angle)
    return quaternion


def quaternion_of_euler(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """(4,) w, x, y, z of roll, pitch and yaw in rad about the base's fixed axes; the inverse of `euler_xyz`."""
    about_x, about_y, about_z = map(quaternion_of_vector, np.diag([roll, pitch, yaw]))
    return multiply(about_z, multiply(about_y, about_x))


def euler_xyz(quaternion: np.ndarray) -> tuple[float, float, float]:
    """Roll, pitch and yaw in rad about the base's fixed axes."""
    w, x, y, z = quaternion
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return float(roll), float(pitch), float(yaw)
