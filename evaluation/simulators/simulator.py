"""What a simulator's adapter gives and gets: the contract between a simulator's process and the runner."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Trial:
    """One episode of a benchmark.

    Args:
        task: its name, unique in the benchmark.
        index: of the trial among the task's, from 0.
        seed: of the simulator, and of the policy's noise.
        robot: name in `instructvla.evaluation.robots`.
        max_steps: control steps after which the episode ends.
        groups: what its success counts towards beside its task, e.g. level and category.
        stops_at_success: False where the published protocol judges the last step alone.
        options: what the adapter's `reset` needs, as JSON.
        instruction: what the policy is told; None: what the simulator says.
        unnorm_key: statistics that fit the task, where the robot's checkpoints have several.
    """

    task: str
    index: int
    seed: int
    robot: str
    max_steps: int
    groups: tuple[str, ...] = ()
    stops_at_success: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None
    unnorm_key: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """By which it is found in a ledger."""
        return self.task, self.index

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"groups": list(self.groups), "options": dict(self.options)}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Trial":
        return cls(**{**record, "groups": tuple(record["groups"])})


@dataclass(frozen=True)
class Observation:
    """What a simulator gives after `reset` and after each step.

    Args:
        images: camera → (height, width, 3) uint8, upright, under the names of the policy's cameras.
        instruction: what the simulator asks for now; long tasks may change it.
        proprioception: (n,) float64, as the robot's `state` function in `instructvla.evaluation.robots` takes it; None
            where policies get none.
        state: (n,) float64, all that the simulation goes on from, so that two runs can be compared.
        reward: of the last step.
        success: whether the task is done now.
        done: whether the simulator ends the episode.
    """

    images: dict[str, np.ndarray]
    instruction: str
    proprioception: np.ndarray | None
    state: np.ndarray
    reward: float = 0.0
    success: bool = False
    done: bool = False


class Simulator(Protocol):
    """One robot in one simulator; an adapter's module has `make_simulator() -> Simulator`.

    Attributes:
        versions: package → version, of all that the outcome depends on.
        notes: what makes its scores differ from published ones, e.g. stand-in assets; empty for a faithful set-up.
    """

    versions: Mapping[str, str]
    notes: tuple[str, ...]

    def reset(self, trial: Trial) -> Observation:
        """Start an episode; the same trial gives the same one in every process.

        Raises:
            ValueError: a task or an option that the simulator doesn't have.
        """
        ...

    def step(self, command: np.ndarray) -> Observation:
        """One control step.

        Args:
            command: as the robot of the trial gives it, see `instructvla.evaluation.robots`.
        """
        ...

    def close(self) -> None: ...
