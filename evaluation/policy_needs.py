"""What a served policy takes of a simulator's observations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructvla.evaluation.robots import Robot


@dataclass(frozen=True)
class PolicyNeeds:
    """What a policy takes, from its server's metadata.

    Args:
        cameras: its pictures.
        takes_state: whether it takes proprioception.
        unnorm_keys: its statistics.
    """

    cameras: tuple[str, ...]
    takes_state: bool
    unnorm_keys: tuple[str, ...]

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> "PolicyNeeds":
        return cls(tuple(metadata["cameras"]), metadata["state_dim"] is not None, tuple(metadata["unnorm_keys"]))

    def pictures(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The policy's cameras, under its names; its only camera sees the simulator's first one.

        Raises:
            ValueError: the simulator lacks a camera of the policy.
        """
        if len(self.cameras) == 1 and self.cameras[0] not in images:
            return {self.cameras[0]: next(iter(images.values()))}
        if lacking := [camera for camera in self.cameras if camera not in images]:
            raise ValueError(f"the policy looks through {', '.join(lacking)}; the simulator has {', '.join(images)}.")
        return {camera: images[camera] for camera in self.cameras}

    def statistics_for(self, robot: Robot, wanted: str | None = None) -> str:
        """The key of the statistics for a robot.

        Args:
            wanted: key that fits the task, or that the user asks for.

        Raises:
            ValueError: the policy has none for this robot.
        """
        fitting = robot.unnorm_keys if wanted is None else (wanted,)
        for key in fitting:
            if key in self.unnorm_keys:
                return key
        if not fitting and len(self.unnorm_keys) == 1:
            return self.unnorm_keys[0]
        has = f"the policy has statistics of {', '.join(self.unnorm_keys)}"
        if not fitting:
            raise ValueError(f"{has}; name those for {robot.name} with --unnorm-key.")
        raise ValueError(
            f"{has}, and none of {' or '.join(fitting)} for {robot.name}; take a checkpoint that was trained for this "
            "robot, or name one of the policy's with --unnorm-key."
        )
