"""Conventions of the evaluated robots: rotations, gripper commands and proprioception, as in the released evaluation.

Rotations follow transforms3d where SimplerEnv uses it and robosuite where LIBERO does. Angles are radians; Euler angles
are `sxyz` (roll, pitch, yaw about the static x, y, z axes, so R = Rz·Ry·Rx); axis-angle is the unit axis times an angle
in [0, 2π]. All functions compute in float64 and raise `ValueError` for another shape or values that are not finite.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

QuaternionOrder = Literal["xyzw", "wxyz"]

WIDOWX_DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Gripper-down pose of the Bridge set-up: its orientations are stored relative to this rotation (SimplerEnv)."""

UNIT_NORM_TOLERANCE = 1e-3


def euler_to_axis_angle(euler: ArrayLike) -> np.ndarray:
    """Euler angles `(..., 3)` to axis-angle `(..., 3)`; the angle is not wrapped (transforms3d `euler2axangle`)."""
    half = _checked(euler, (3,), "Euler angles") / 2
    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    x = sx * cy * cz - cx * sy * sz
    y = cx * sy * cz + sx * cy * sz
    z = cx * cy * sz - sx * sy * cz
    w = cx * cy * cz + sx * sy * sz
    return quaternion_to_axis_angle(np.stack([x, y, z, w], axis=-1), order="xyzw")


def quaternion_to_axis_angle(quaternion: ArrayLike, order: QuaternionOrder) -> np.ndarray:
    """Unit quaternion `(..., 4)` to axis-angle `(..., 3)` with angle 2·acos(w), zero for ±identity.

    With `order="xyzw"` this is robosuite's `quat2axisangle`, which builds LIBERO's state.
    """
    quaternion = _unit_xyzw(quaternion, order)
    vector, w = quaternion[..., :3], quaternion[..., 3:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, w)  # 2·acos(w) without its loss of precision at small angles
    return vector * np.divide(angle, sine, out=np.zeros_like(sine), where=sine > 0)


def quaternion_to_matrix(quaternion: ArrayLike, order: QuaternionOrder) -> np.ndarray:
    """Unit quaternion `(..., 4)` to rotation matrix `(..., 3, 3)` (transforms3d `quat2mat`, whose order is wxyz)."""
    x, y, z, w = np.moveaxis(_unit_xyzw(quaternion, order), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(matrix: ArrayLike) -> np.ndarray:
    """Rotation matrix `(..., 3, 3)` to Euler angles `(..., 3)`; at gimbal lock yaw is 0 (transforms3d `mat2euler`)."""
    m = np.moveaxis(_checked(matrix, (3, 3), "Rotation matrix"), (-2, -1), (0, 1))
    cos_pitch = np.hypot(m[0, 0], m[1, 0])
    locked = cos_pitch <= 4 * np.finfo(np.float64).eps
    roll = np.where(locked, np.arctan2(-m[1, 2], m[1, 1]), np.arctan2(m[2, 1], m[2, 2]))
    pitch = np.arctan2(-m[2, 0], cos_pitch)
    yaw = np.where(locked, 0.0, np.arctan2(m[1, 0], m[0, 0]))
    return np.stack([roll, pitch, yaw], axis=-1)


def quaternion_to_euler(quaternion: ArrayLike, order: QuaternionOrder) -> np.ndarray:
    """Unit quaternion `(..., 4)` to Euler angles `(..., 3)`."""
    return matrix_to_euler(quaternion_to_matrix(quaternion, order))


def axis_angle_to_intrinsic_euler(axis_angle: ArrayLike) -> np.ndarray:
    """Axis-angle `(..., 3)` to a, b, c `(..., 3)` of R = Rx(a)·Ry(b)·Rz(c), as ManiSkill3's controllers read them."""
    axis_angle = _checked(axis_angle, (3,), "Axis-angle")
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    vector = axis_angle * 0.5 * np.sinc(angle / (2 * np.pi))  # axis · sin(angle / 2), also at angle 0
    matrix = quaternion_to_matrix(np.concatenate([np.cos(angle / 2), vector], axis=-1), "wxyz")
    return -matrix_to_euler(np.swapaxes(matrix, -1, -2))  # the inverse is Rz(-c)·Ry(-b)·Rx(-a)


def widowx_state(eef_pos: ArrayLike) -> np.ndarray:
    """Bridge proprioception from SimplerEnv's `agent.eef_pos`.

    Args:
        eef_pos: `(..., 8)`: position (m), quaternion wxyz, gripper opening (1 = open), in the robot base frame.

    Returns:
        `(..., 8)`: position (m), Euler angles relative to `WIDOWX_DEFAULT_ROTATION` (rad), 0, gripper opening.
    """
    eef_pos = _checked(eef_pos, (8,), "eef_pos")
    euler = matrix_to_euler(quaternion_to_matrix(eef_pos[..., 3:7], "wxyz") @ WIDOWX_DEFAULT_ROTATION.T)
    return np.concatenate([eef_pos[..., :3], euler, np.zeros_like(eef_pos[..., :1]), eef_pos[..., 7:]], axis=-1)


def google_robot_state(eef_pos: ArrayLike) -> np.ndarray:
    """Fractal proprioception from SimplerEnv's `agent.eef_pos`.

    Args:
        eef_pos: `(..., 8)`: position (m), quaternion wxyz, gripper opening (1 = open), in the robot base frame.

    Returns:
        `(..., 8)`: position (m), quaternion xyzw, gripper closure (1 - opening).
    """
    eef_pos = _checked(eef_pos, (8,), "eef_pos")
    _unit_xyzw(eef_pos[..., 3:7], "wxyz")
    return np.concatenate([eef_pos[..., :3], eef_pos[..., 4:7], eef_pos[..., 3:4], 1 - eef_pos[..., 7:]], axis=-1)


def widowx_gripper(opening: ArrayLike) -> np.ndarray:
    """WidowX command in SimplerEnv, of the opening's shape: 1 (open) above an opening of 0.5, else -1 (close)."""
    return 2.0 * (_checked(opening, (), "Gripper opening") > 0.5) - 1.0


def libero_gripper(opening: ArrayLike) -> np.ndarray:
    """LIBERO command -sign(2g - 1), of the opening's shape: -1 opens, 1 closes (robosuite), 0 at exactly 0.5."""
    return -np.sign(2 * _checked(opening, (), "Gripper opening") - 1)


class GoogleRobotGripper:
    """Latched gripper command of the Google robot in SimplerEnv: change of the opening, positive closes.

    The command is the reference opening minus the wanted one. A change beyond 0.5 makes the wanted opening the new
    reference and is held for `repeat` steps, whatever is wanted meanwhile: the simulated gripper needs them to move.

    Args:
        repeat: steps for which a command is held, the first included; at least 1 (released evaluation: 10).
    """

    def __init__(self, repeat: int = 10):
        if repeat < 1:
            raise ValueError(
                f"A gripper command is held for at least 1 step, got repeat={repeat}; SimplerEnv's value is 10."
            )
        self.repeat = repeat
        self.reset()

    def reset(self) -> None:
        """Forget reference and held command: call it when an episode or an instruction starts."""
        self._reference: float | None = None
        self._held_command = 0.0
        self._held_steps = 0

    def __call__(self, opening: float) -> float:
        """The command in [-1, 1] for a wanted opening in [0, 1]; 0 at the first step."""
        opening = float(_checked(opening, (), "Gripper opening"))
        if self._reference is None:
            self._reference = opening
        change = self._reference - opening
        if abs(change) > 0.5 and self._held_steps == 0:
            self._reference, self._held_command, self._held_steps = opening, change, self.repeat
        if self._held_steps == 0:
            return change
        self._held_steps -= 1
        return self._held_command


class SimplerCommand(NamedTuple):
    """One SimplerEnv action; `np.concatenate(command[:3])` is what the environment's `step` takes."""

    world_vector: np.ndarray  # (3,) translation, m
    rot_axangle: np.ndarray  # (3,) rotation, axis-angle, rad
    gripper: np.ndarray  # (1,) the robot's own convention
    terminate_episode: np.ndarray  # (1,) always 0: the policy never ends an episode


def simpler_command(
    action: ArrayLike, gripper: Callable[[float], float | np.ndarray], action_scale: float = 1.0
) -> SimplerCommand:
    """Turn one end-effector action into SimplerEnv's command.

    Args:
        action: `(7,)` translation (m), Euler rotation (rad), gripper opening (1 = open), un-normalised and ensembled.
        gripper: the robot's gripper convention: `widowx_gripper` or the episode's own `GoogleRobotGripper`.
        action_scale: factor on translation and axis-angle.
    """
    action = _checked(action, (7,), "Action")
    if action.ndim != 1:
        raise ValueError(f"simpler_command takes one action of shape (7,), got {action.shape}; pass one row.")
    return SimplerCommand(
        world_vector=action[:3] * action_scale,
        rot_axangle=euler_to_axis_angle(action[3:6]) * action_scale,
        gripper=np.array([gripper(float(action[6]))]),
        terminate_episode=np.zeros(1),
    )


def _checked(values: ArrayLike, trailing: tuple[int, ...], name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape[values.ndim - len(trailing) :] != trailing:
        expected = ", ".join(["...", *map(str, trailing)])
        raise ValueError(f"{name} must have shape ({expected}), got {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values}.")
    return values


def _unit_xyzw(quaternion: ArrayLike, order: QuaternionOrder) -> np.ndarray:
    if order not in ("xyzw", "wxyz"):
        raise ValueError(f"Quaternion order must be 'xyzw' or 'wxyz', got {order!r}.")
    quaternion = _checked(quaternion, (4,), "Quaternion")
    if order == "wxyz":
        quaternion = np.roll(quaternion, -1, axis=-1)
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if np.any(np.abs(norm - 1) > UNIT_NORM_TOLERANCE):
        raise ValueError(
            f"Quaternion must have norm 1 (within {UNIT_NORM_TOLERANCE}), got norm {norm.squeeze(-1)}; "
            "normalise it, and check that it is not an empty reading."
        )
    return quaternion / norm
