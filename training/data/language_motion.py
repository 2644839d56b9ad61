"""Language motion: what the end-effector does from step t to step t+W, in words (paper section 4.1 and appendix C.4).

The rule and the words are those of the released annotations, which for Bridge come from ECoT (arXiv 2407.08693) and for
Fractal from the authors' own script. The text follows this grammar, always in this order:

    motion  = "stop" | phrase {joiner phrase}                        joiner = ", " in the released annotations
    phrase  = "move" ["forward" | "backward"] ["left" | "right"] ["up" | "down"]
            | "tilt up" | "tilt down" | "rotate clockwise" | "rotate counterclockwise"
            | "open gripper" | "close gripper"

Displacements are in the frame of the robot's base. A direction is named if it exceeds the threshold and, in a large
movement, makes up at least a third of |dx| + |dy| + |dz|. At the end of an episode the window ends at the last step.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from typing import Any, Self

import numpy as np

from instructvla.training.data.episodes import BadEpisodeError, Episode

ROTATION_DIMS = {"euler_xyz": 3, "axis_angle": 3, "quaternion_xyzw": 4, "quaternion_wxyz": 4}
AXES = {sign + name: (index, 1 if sign == "+" else -1) for index, name in enumerate("xyz") for sign in "+-"}
LISTS = ("position", "rotation", "tilt_up")
SMALLEST_SHARE = 1 / 3  # of the whole translation, so that a small drift in a large movement is not named
ROUNDING = 1 - 1e-6  # the share of an exact diagonal is a third but for rounding
TEXTS = (  # of each sign's column: what -1 and +1 mean
    ("backward", "forward"),
    ("right", "left"),
    ("down", "up"),
    ("tilt down", "tilt up"),
    ("rotate clockwise", "rotate counterclockwise"),
    ("close gripper", "open gripper"),
)


@dataclass(frozen=True)
class MotionSettings:
    """How to read a state, and what counts as a movement.

    Args:
        window: W, in steps.
        translation_threshold: along each axis, in metres.
        tilt_threshold, turn_threshold: of a rotation, in radians.
        gripper_threshold: of the gripper's dimension, in its own unit.
        position: dimensions of x, y and z in the state.
        rotation: dimensions of the orientation; empty if rotations shall not be named.
        rotation_form: "euler_xyz" (roll, pitch, yaw about the base's fixed axes), "axis_angle", "quaternion_xyzw" or
            "quaternion_wxyz".
        gripper: dimension of the gripper; None if it shall not be named.
        gripper_open_sign: 1 if that dimension grows when the gripper opens, -1 if it grows when it closes.
        forward, left, up: axis of the base's frame, such as "+x".
        tilt_up: axes about which a positive rotation is "tilt up"; the first with a movement decides.
        counterclockwise: axis about which a positive rotation is "rotate counterclockwise".
        joiner: between phrases; " and " gives the wording in the paper's text.

    Raises:
        ValueError: for a value that can't be used.
    """

    window: int = 3
    translation_threshold: float = 0.03
    tilt_threshold: float = 0.3
    turn_threshold: float = 0.3
    gripper_threshold: float = 0.03
    position: tuple[int, ...] = (0, 1, 2)
    rotation: tuple[int, ...] = ()
    rotation_form: str | None = None
    gripper: int | None = None
    gripper_open_sign: int = 1
    forward: str = "+x"
    left: str = "+y"
    up: str = "+z"
    tilt_up: tuple[str, ...] = ("-y",)
    counterclockwise: str = "+z"
    joiner: str = ", "

    def __post_init__(self):
        self._check_numbers()
        self._check_layout()
        self._check_axes()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping file's `motion:` section; lists become tuples.

        Raises:
            ValueError: for an unknown field, or a value that can't be used.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(map(str, values)) - set(known)):
            raise ValueError(f"motion has no {', '.join(unknown)}; its fields are {', '.join(known)}.")
        for name in LISTS:
            if name in values and not isinstance(values[name], list | tuple):
                raise ValueError(f"motion: {name} must be a list, got {values[name]!r}.")
        return cls(**{name: tuple(value) if name in LISTS else value for name, value in values.items()})

    def _check_numbers(self) -> None:
        if type(self.window) is not int or self.window < 1:
            raise ValueError(f"motion: window must be a whole number of steps from 1 on, got {self.window!r}.")
        for name in ("translation_threshold", "tilt_threshold", "turn_threshold", "gripper_threshold"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < np.inf:
                raise ValueError(f"motion: {name} must be a number above 0, got {value!r}.")
        if self.gripper_open_sign not in (1, -1):
            raise ValueError(f"motion: gripper_open_sign must be 1 or -1, got {self.gripper_open_sign!r}.")

    def _check_layout(self) -> None:
        if self.rotation and self.rotation_form not in ROTATION_DIMS:
            raise ValueError(
                f"motion: rotation_form must be one of {', '.join(ROTATION_DIMS)}, got {self.rotation_form!r}."
            )
        wanted = {"position": 3, "rotation": ROTATION_DIMS[self.rotation_form] if self.rotation else 0}
        for name, count in wanted.items():
            if len(getattr(self, name)) != count:
                raise ValueError(f"motion: {name} must name {count} state dimensions, got {list(getattr(self, name))}.")
        for dim in self.dims():
            if type(dim) is not int or dim < 0:
                raise ValueError(f"motion: a state dimension is a number from 0 on, got {dim!r}.")

    def _check_axes(self) -> None:
        for axis in (self.forward, self.left, self.up, self.counterclockwise, *self.tilt_up):
            if axis not in AXES:
                raise ValueError(f"motion: {axis!r} is no axis; give one of {', '.join(AXES)}.")
        if len({AXES[axis][0] for axis in (self.forward, self.left, self.up)}) < 3:
            raise ValueError(
                f"motion: forward {self.forward}, left {self.left} and up {self.up} must be three different axes."
            )

    def dims(self) -> tuple[int, ...]:
        """The state dimensions that are read."""
        return (*self.position, *self.rotation, *(() if self.gripper is None else (self.gripper,)))


def language_motion(states: np.ndarray, settings: MotionSettings) -> list[str]:
    """The motion at each of T steps.

    Args:
        states: (T, state_dim), physical units.

    Raises:
        ValueError: if the settings name a dimension that the states lack, a value is not finite, or a quaternion is 0.
    """
    states = np.asarray(states, np.float64)
    check_states(states, settings)
    start, end = np.arange(len(states)), np.minimum(np.arange(len(states)) + settings.window, len(states) - 1)
    signs = np.zeros((len(TEXTS), len(states)), np.int8)
    position = states[:, settings.position]
    signs[:3] = translation_signs(position[end] - position[start], settings)
    if settings.rotation:
        orientation = quaternions(states[:, settings.rotation], settings.rotation_form)
        signs[3:5] = rotation_signs(euler_xyz(turn_between(orientation[start], orientation[end])), settings)
    if settings.gripper is not None:
        gripper = states[:, settings.gripper] * settings.gripper_open_sign
        signs[5] = signs_beyond(gripper[end] - gripper[start], settings.gripper_threshold)
    return motion_texts(settings.joiner)[tuple(signs + 1)].tolist()


def with_language_motion(episode: Episode, settings: MotionSettings) -> Episode:
    """The episode with motions where it had none; those that it has stay, as does an episode without states.

    Raises:
        BadEpisodeError: as `language_motion`.
    """
    known = episode.language_motions or [None] * len(episode)
    if episode.states is None or None not in known:
        return episode
    try:
        computed = language_motion(episode.states, settings)
    except ValueError as error:
        raise BadEpisodeError(f"{episode.dataset}/{episode.episode_id}: no language motion: {error}") from error
    motions = [new if old is None else old for old, new in zip(known, computed, strict=True)]
    return replace(episode, language_motions=motions)


def check_states(states: np.ndarray, settings: MotionSettings) -> None:
    if states.ndim != 2:
        raise ValueError(f"states must be (T, state_dim), got shape {states.shape}.")
    dims = list(settings.dims())
    if max(dims) >= states.shape[1]:
        raise ValueError(
            f"the motion settings name state dimension {max(dims)}, but the states have {states.shape[1]} dimensions; "
            "correct position, rotation and gripper."
        )
    broken = ~np.isfinite(states[:, dims])
    if broken.any():
        step, column = np.argwhere(broken)[0]
        raise ValueError(f"the state at step {step} has {states[step, dims[column]]} in dimension {dims[column]}.")


def translation_signs(displacement: np.ndarray, settings: MotionSettings) -> np.ndarray:
    """(3, T) signs of forward, left and up, of displacements (T, 3) in metres."""
    whole = np.abs(displacement).sum(axis=1, keepdims=True)  # (T, 1)
    counts = np.abs(displacement) >= SMALLEST_SHARE * ROUNDING * whole
    signs = signs_beyond(displacement, settings.translation_threshold) * counts
    return np.stack(
        [signs[:, AXES[axis][0]] * AXES[axis][1] for axis in (settings.forward, settings.left, settings.up)]
    )


def rotation_signs(angles: np.ndarray, settings: MotionSettings) -> np.ndarray:
    """(2, T) signs of "tilt up" and "rotate counterclockwise", of turns (T, 3) about x, y and z in radians."""
    tilt = np.zeros(len(angles), np.int8)
    for index, direction in (AXES[axis] for axis in settings.tilt_up):
        tilt = np.where(tilt == 0, direction * signs_beyond(angles[:, index], settings.tilt_threshold), tilt)
    index, direction = AXES[settings.counterclockwise]
    return np.stack([tilt, direction * signs_beyond(angles[:, index], settings.turn_threshold)])


def signs_beyond(values: np.ndarray, threshold: float) -> np.ndarray:
    """1 above the threshold, -1 below its negative, else 0."""
    return (values > threshold).astype(np.int8) - (values < -threshold).astype(np.int8)


@cache
def motion_texts(joiner: str) -> np.ndarray:
    """The text of every combination of signs: (3, 3, 3, 3, 3, 3) objects, index 0 for -1, 1 for 0, 2 for 1."""
    texts = np.empty((3,) * len(TEXTS), object)
    for signs in product((-1, 0, 1), repeat=len(TEXTS)):
        words = [names[sign > 0] if sign else None for sign, names in zip(signs, TEXTS, strict=True)]
        directions = [word for word in words[:3] if word]
        phrases = [" ".join(["move", *directions])] if directions else []
        phrases += [word for word in words[3:] if word]
        texts[tuple(sign + 1 for sign in signs)] = joiner.join(phrases) or "stop"
    return texts


def quaternions(rotation: np.ndarray, form: str) -> np.ndarray:
    """(T, 4) unit quaternions (w, x, y, z) of orientations in one of the forms of `MotionSettings`.

    Raises:
        ValueError: for a quaternion of length 0.
    """
    if form == "euler_xyz":
        return quaternions_of_euler_xyz(rotation)
    if form == "axis_angle":
        angle = np.linalg.norm(rotation, axis=1, keepdims=True)
        vector = rotation * 0.5 * np.sinc(angle / (2 * np.pi))  # axis · sin(angle / 2), also at angle 0
        return np.concatenate([np.cos(angle / 2), vector], axis=1)
    length = np.linalg.norm(rotation, axis=1, keepdims=True)
    if (length < 1e-6).any():
        raise ValueError(f"the state at step {int(np.argmin(length))} has a quaternion of length 0.")
    unit = rotation / length
    return unit[:, [3, 0, 1, 2]] if form == "quaternion_xyzw" else unit


def quaternions_of_euler_xyz(angles: np.ndarray) -> np.ndarray:
    """Quaternions of Rz(yaw) · Ry(pitch) · Rx(roll), from (T, 3) roll, pitch and yaw."""
    turns = []
    for axis in range(3):
        turn = np.zeros((len(angles), 4))
        turn[:, 0], turn[:, 1 + axis] = np.cos(angles[:, axis] / 2), np.sin(angles[:, axis] / 2)
        turns.append(turn)
    roll, pitch, yaw = turns
    return multiply(yaw, multiply(pitch, roll))


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hamilton products of (T, 4) quaternions (w, x, y, z): the rotation `right`, then `left`."""
    w1, x1, y1, z1 = left.T
    w2, x2, y2, z2 = right.T
    return np.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        axis=1,
    )


def turn_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotations in the base's frame that lead from `start` to `end`; all (T, 4)."""
    return multiply(end, start * [1, -1, -1, -1])


def euler_xyz(quaternion: np.ndarray) -> np.ndarray:
    """(T, 3) roll, pitch and yaw of unit quaternions; the inverse of `quaternions_of_euler_xyz` for |pitch| < π/2."""
    w, x, y, z = quaternion.T
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.stack([roll, pitch, yaw], axis=1)
