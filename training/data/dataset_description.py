"""What the columns of a dataset mean: kept in the manifest of prepared episodes, needed for statistics and models."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetDescription:
    """Names and units of one dataset's columns, in physical units.

    Args:
        dataset: key of its statistics, `unnorm_key`.
        cameras: names of its cameras.
        action_names, action_units: one per dimension of the action.
        gripper_dims: dimensions of the action that are grippers, 1 open and 0 closed.
        state_names, state_units: one per dimension of the state; none without a state.
        first_step: number of steps at the start of each recording that its episodes leave out.
        dropped_steps: number of steps that they leave out at both ends together.
        state_padding: dimensions of the state that are constant zeros, there for its size alone.
        motion: settings of its language motion (`language_motion.MotionSettings`), if it has any.
    """

    dataset: str
    cameras: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    gripper_dims: tuple[int, ...] = ()
    state_names: tuple[str, ...] = ()
    state_units: tuple[str, ...] = ()
    first_step: int = 0
    dropped_steps: int = 0
    state_padding: tuple[int, ...] = ()
    motion: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetDescription":
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
