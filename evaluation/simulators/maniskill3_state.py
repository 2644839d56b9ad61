"""What `Observation.state` holds in ManiSkill3's WidowX tasks: written by the adapter, read by the scripted expert."""

from dataclasses import dataclass, fields

import numpy as np

from instructvla.evaluation.simulators.widowx_expert import Poses

POSE = 7  # position in m, unit quaternion wxyz
VELOCITY = 6  # linear in m/s, angular in rad/s
JOINTS = 8  # six of the arm in rad, two fingers in m
SIZES = {
    "base": POSE,
    "target": POSE,
    "source": POSE,
    "destination": POSE,
    "source_velocity": VELOCITY,
    "destination_velocity": VELOCITY,
    "joints": JOINTS,
    "joint_velocities": JOINTS,
}


@dataclass(frozen=True)
class BridgeState(Poses):
    """The robot and the two objects.

    Args:
        source_velocity, destination_velocity: (6,) m/s and rad/s, in the world.
        joints: (8,) rad, and m of the fingers.
        joint_velocities: (8,) rad/s, and m/s.
    """

    source_velocity: np.ndarray
    destination_velocity: np.ndarray
    joints: np.ndarray
    joint_velocities: np.ndarray

    def vector(self) -> np.ndarray:
        """(56,) float64."""
        return np.concatenate([getattr(self, field.name) for field in fields(self)])

    @classmethod
    def of_vector(cls, vector: np.ndarray) -> "BridgeState":
        """
        Raises:
            ValueError: another size.
        """
        ends = np.cumsum(list(SIZES.values()))
        if vector.shape != (ends[-1],):
            raise ValueError(f"the state must have shape ({ends[-1]},), got {vector.shape}.")
        return cls(**dict(zip(SIZES, np.split(vector, ends[:-1]), strict=True)))
