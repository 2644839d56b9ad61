"""Episodes as they were executed: what was done and what came of it, to be replayed and compared step by step."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from instructvla.evaluation.simulators.simulator import Observation, Trial

SUFFIX = ".npz"
ARRAYS = ("actions", "commands", "states", "rewards", "successes")


@dataclass(frozen=True)
class Recording:
    """One episode.

    Args:
        trial: that was run.
        instructions: (step, text): from which step on the policy was told what, the first from step 0.
        cameras: that the simulator gave.
        actions: (steps, action_dim) float64, the policy's, physical units, after ensembling.
        commands: (steps, n) float64, what the simulator was stepped with.
        states: (steps + 1, n) float64, of the simulator, the first after its reset.
        rewards, successes: (steps + 1,), with those of the reset.
    """

    trial: Trial
    instructions: tuple[tuple[int, str], ...]
    cameras: tuple[str, ...]
    actions: np.ndarray
    commands: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray

    def save(self, folder: Path) -> Path:
        """A file in the folder, named after the trial."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / recording_name(self.trial)
        about = {"trial": self.trial.record(), "instructions": self.instructions, "cameras": list(self.cameras)}
        staged = path.with_suffix(".partial")
        with staged.open("wb") as file:
            np.savez_compressed(file, about=json.dumps(about), **{name: getattr(self, name) for name in ARRAYS})
        staged.replace(path)
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """
        Raises:
            ValueError: no recording.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about: Mapping[str, Any] = json.loads(str(arrays["about"]))
                loaded = {name: arrays[name] for name in ARRAYS}
                told = tuple((step, text) for step, text in about["instructions"])
                return cls(Trial.of_record(about["trial"]), told, tuple(about["cameras"]), **loaded)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no recording ({error}); `instructvla evaluate --record` writes them."
            ) from error

    def differences(self, other: "Recording") -> list[str]:
        """What is not bit-equal, and from which step on; empty for equal episodes."""
        return [
            f"{name} from step {_first_difference(mine, theirs)} on"
            for name in ARRAYS
            if not np.array_equal(mine := getattr(self, name), theirs := getattr(other, name))
        ]


@dataclass
class Recorder:
    """A recording in the making.

    Args:
        trial: that is run.
        start: what its reset gave.
        instruction: that the policy is told at the start.
    """

    trial: Trial
    start: Observation
    instruction: str
    _actions: list[np.ndarray] = field(default_factory=list)
    _commands: list[np.ndarray] = field(default_factory=list)
    _observations: list[Observation] = field(default_factory=list)

    def __post_init__(self):
        self._instructions = [(0, self.instruction)]

    def add(self, action: np.ndarray, command: np.ndarray, observation: Observation) -> None:
        """What was done in a step, and what was seen after it."""
        self._actions.append(np.array(action, np.float64))
        self._commands.append(np.array(command, np.float64))
        self._observations.append(observation)

    def tell(self, instruction: str) -> None:
        """From the next step on the policy is told something else."""
        self._instructions.append((len(self._actions), instruction))

    def recording(self) -> Recording:
        seen = [self.start, *self._observations]
        return Recording(
            self.trial,
            tuple(self._instructions),
            tuple(self.start.images),
            np.array(self._actions),
            np.array(self._commands),
            np.array([observation.state for observation in seen], np.float64),
            np.array([observation.reward for observation in seen], np.float64),
            np.array([observation.success for observation in seen], bool),
        )


def recording_name(trial: Trial) -> str:
    task = "".join(letter if letter.isalnum() else "-" for letter in trial.task)
    return f"{task}_{trial.index:04d}{SUFFIX}"


def load_recordings(folder: Path) -> list[Recording]:
    """All of a folder, by name.

    Raises:
        ValueError: there is none, or one can't be read.
    """
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise ValueError(f"{folder} has no recordings; `instructvla evaluate --record` writes them.")
    return [Recording.load(path) for path in paths]


def _first_difference(one: np.ndarray, other: np.ndarray) -> int:
    steps = min(len(one), len(other))
    equal = [np.array_equal(one[step], other[step]) for step in range(steps)]
    return equal.index(False) if False in equal else steps
