"""What may be wrong with a dataset as a whole, collected while its episodes pass by; a few numbers of each are kept."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episode_checks import Finding, gripper_aperture
from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.language_motion import quaternions, turn_between
from instructvla.training.data.message_groups import SHOWN, few, grouped, without_numbers
from instructvla.training.data.quantile_sketch import QuantileSketch

JUMP_FACTOR = 20
USUAL_FRACTION = 0.9
FEWEST_MOVES = 20  # from which on it is known what is usual
SKETCH_BINS = 1 << 13  # quantiles within 3 % at worst: thresholds need no more
FEWEST_SIGNS = 50
OPPOSED = 0.3  # share of steps in which an action and its state move alike, below which they are called opposed
FEWEST_COMMANDS = 10  # of all episodes, from which on a gripper's sign is judged
WRONG_SIGN = -0.1  # correlation of a gripper's changes with their commands, at the worst delay
CERTAIN = 5.0  # standard errors by which it must differ from none
CLEAR = 1.5  # times as strong as any correlation of the right sign
GRIPPER_UNITS = ("open fraction", "closed fraction")  # a gripper may open within a step


@dataclass(frozen=True)
class Problem:
    """A finding and whose it is.

    Args:
        check: which check found it.
        message: for a person.
        episode: id; None where it can't be read, or for the dataset as a whole.
        number: of the episode in its reader; None for the dataset as a whole.
        cause: what problems of the same kind share; by default the message but for its numbers.
    """

    check: str
    message: str
    episode: str | None = None
    number: int | None = None
    cause: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """What problems of several episodes share if they are the same."""
        return self.check, self.cause or without_numbers(self.message)

    def __str__(self) -> str:
        if self.number is None:
            return f"dataset: {self.check}: {self.message}"
        name = "" if self.episode is None else f" ({self.episode})"
        return f"episode {self.number}{name}: {self.check}: {self.message}"


def of_episode(finding: Finding, number: int, episode_id: str) -> Problem:
    return Problem(finding.check, finding.message, episode_id, number, finding.cause)


def of_unreadable(error: BadEpisodeError, number: int) -> Problem:
    """Episodes that the same file keeps from being read, in the same way, are of one kind."""
    cause = f"{error.file}: {without_numbers(str(error))}" if error.file else ""
    return Problem("unreadable", str(error), number=number, cause=cause)


class Collector(Protocol):
    """A check of a dataset as a whole."""

    def add(self, number: int, episode: Episode) -> None: ...

    def problems(self) -> Iterator[Problem]: ...


def dataset_checks(description: DatasetDescription) -> "list[Collector]":
    """All checks of a dataset as a whole, at their start; none of them looks at pictures."""
    kinds = (ConstantDims, Jumps, OpposedActions, OpposedGripper)
    return [*(kind(description) for kind in kinds), DuplicateIds()]


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """A line for each problem; one for all of a kind that more than a few episodes have, with the first's message."""
    lines = []
    for group in grouped(problems, key=lambda problem: (problem.number is None, problem.kind)):
        numbers = sorted({problem.number for problem in group if problem.number is not None})
        if len(numbers) <= SHOWN:
            lines += map(str, group)
        else:
            lines.append(f"{len(numbers):,} episodes ({few(numbers)}): {group[0].check}: {group[0].message}")
    return lines


class DuplicateIds:
    """Episodes with the id and the file path of an earlier one."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, str | None], int] = {}
        self.repeated: list[tuple[int, str, int]] = []

    def add(self, number: int, episode: Episode) -> None:
        first = self.first.setdefault((episode.episode_id, episode.file_path), number)
        if first != number:
            self.repeated.append((number, episode.episode_id, first))

    def problems(self) -> Iterator[Problem]:
        for number, episode_id, first in self.repeated:
            yield Problem("duplicate id", f"episode {first} has the same id", episode_id, number)


class ConstantDims:
    """Dimensions that never change in the whole dataset; zeros without a unit are padding, and not reported."""

    def __init__(self, description: DatasetDescription):
        self.names = {"action": description.action_names, "state": description.state_names}
        self.units = {"action": description.action_units, "state": description.state_units}
        self.first: dict[str, np.ndarray] = {}
        self.is_constant = {name: np.ones(len(names), bool) for name, names in self.names.items()}

    def add(self, number: int, episode: Episode) -> None:
        for name, values in (("action", episode.actions), ("state", episode.states)):
            if values is not None and values.shape[1] == len(self.names[name]):
                first = self.first.setdefault(name, values[0].copy())
                self.is_constant[name] &= (values == first).all(axis=0)

    def problems(self) -> Iterator[Problem]:
        for name, first in self.first.items():
            for dim in np.flatnonzero(self.is_constant[name]).tolist():
                if first[dim] != 0 or self.units[name][dim] != "none":
                    label = f"{name} dimension {dim} ({self.names[name][dim]})"
                    yield Problem("constant", f"{label} is {first[dim]:g} at every step of every episode")


class Jumps:
    """Changes of the state between two steps that are far beyond the usual ones of that dimension.

    Usual is the 90 % quantile of the dataset's changes that are not zero, and 20 times as much is a jump: about 33
    standard deviations of a normal distribution. Rotations count as the angle between the two orientations where the
    description tells their form, and other angles by the shorter way; grippers are left out, as they may open within
    a step.
    """

    def __init__(self, description: DatasetDescription):
        self.description = description
        self.sketches: dict[str, QuantileSketch] = {}
        self.largest: dict[str, array[float]] = {}  # of each episode
        self.steps: dict[str, array[int]] = {}
        self.episodes: list[tuple[int, str]] = []

    def add(self, number: int, episode: Episode) -> None:
        if not has_usable_state(episode, self.description) or len(episode) < 2:
            return
        self.episodes.append((number, episode.episode_id))
        for name, change in state_changes(episode.states, self.description).items():
            self.sketches.setdefault(name, QuantileSketch(SKETCH_BINS)).add(change[change > 0].astype(np.float32))
            step = int(change.argmax())
            self.largest.setdefault(name, array("d")).append(change[step])
            self.steps.setdefault(name, array("q")).append(step)

    def problems(self) -> Iterator[Problem]:
        for name, sketch in self.sketches.items():
            if sketch.count < FEWEST_MOVES:
                continue
            usual = float(sketch.quantiles([USUAL_FRACTION])[0])
            for place in np.flatnonzero(np.asarray(self.largest[name]) > JUMP_FACTOR * usual).tolist():
                number, episode_id = self.episodes[place]
                step, change = self.steps[name][place], self.largest[name][place]
                message = f"{name} changes by {change:.3g} from step {step} to {step + 1}; usual is up to {usual:.3g}"
                yield Problem("jump", message, episode_id, number)


def has_usable_state(episode: Episode, description: DatasetDescription) -> bool:
    states = episode.states
    return states is not None and states.shape[1] == len(description.state_names) and bool(np.isfinite(states).all())


def state_changes(states: np.ndarray, description: DatasetDescription) -> dict[str, np.ndarray]:
    """What changes → (T − 1,) how much from one step to the next, 0 or more."""
    values, motion = states.astype(np.float64), description.motion or {}
    rotation = list(motion.get("rotation") or ()) if motion.get("rotation_form") else []
    changes = {}
    for dim, (name, unit) in enumerate(zip(description.state_names, description.state_units, strict=True)):
        if dim not in rotation and dim != motion.get("gripper") and unit not in GRIPPER_UNITS:
            changes[f"state dimension {dim} ({name})"] = np.abs(differences(values[:, dim], unit))
    if rotation and not (values[:, rotation] == 0).all(axis=1).any():  # a quaternion of zeros is no orientation
        orientation = quaternions(values[:, rotation], motion["rotation_form"])
        turn = turn_between(orientation[:-1], orientation[1:])
        angle = 2 * np.arctan2(np.linalg.norm(turn[:, 1:], axis=1), np.abs(turn[:, 0]))
        changes["the state's orientation (rad)"] = np.where(angle < 1e-6, 0, angle)  # less is rounding
    return changes


def differences(column: np.ndarray, unit: str) -> np.ndarray:
    """(T − 1,) from one step to the next, angles by the shorter way."""
    change = np.diff(column)
    return (change + np.pi) % (2 * np.pi) - np.pi if unit == "rad" else change


class OpposedActions:
    """Action dimensions that move against the state dimension of the same name: a wrong sign or another frame.

    Only signs are compared, of steps where both change, so that a controller's own units do no harm.
    """

    def __init__(self, description: DatasetDescription):
        self.description = description
        self.pairs = [
            (name, dim, description.state_names.index(name))
            for dim, name in enumerate(description.action_names)
            if name in description.state_names and dim not in description.gripper_dims
        ]
        self.alike, self.moving = np.zeros(len(self.pairs), int), np.zeros(len(self.pairs), int)

    def add(self, number: int, episode: Episode) -> None:
        sized = episode.actions.shape[1] == len(self.description.action_names)
        if not sized or not has_usable_state(episode, self.description):
            return
        for place, (_, action_dim, state_dim) in enumerate(self.pairs):
            change = differences(episode.states[:, state_dim], self.description.state_units[state_dim])
            signs = np.sign(episode.actions[:-1, action_dim]) * np.sign(change)
            self.alike[place] += np.count_nonzero(signs > 0)
            self.moving[place] += np.count_nonzero(signs)

    def problems(self) -> Iterator[Problem]:
        for (name, dim, _), alike, moving in zip(self.pairs, self.alike, self.moving, strict=True):
            if moving >= FEWEST_SIGNS and alike < OPPOSED * moving:
                yield Problem(
                    "opposed action",
                    f"action dimension {dim} ({name}) moves against the state's {name} in {moving - alike:,} of "
                    f"{moving:,} steps; correct its sign or its frame in the mapping",
                )


class OpposedGripper:
    """A gripper that closes when the action opens it: evidence of all episodes, however short their grasps.

    Compared are changes of the command and changes of the opening in the state, up to a second before and after. A
    hand that opens again after a short hold has an echo of the other sign, one hold away, but never a stronger one than
    the answer to each command; so the sign of the strongest correlation is the gripper's.
    """

    def __init__(self, description: DatasetDescription):
        self.description, self.aperture = description, gripper_aperture(description)
        self.products: Counter[int] = Counter()  # delay in steps → sum of products of changes
        self.commands = self.episodes = self.steps = 0
        self.squares = np.zeros(2)  # sums of squared changes, of the command and of the opening
        self.rate = 1.0

    def add(self, number: int, episode: Episode) -> None:
        sized = episode.actions.shape[1] == len(self.description.action_names)
        usable = sized and has_usable_state(episode, self.description) and np.isfinite(episode.actions).all()
        if self.aperture is None or not self.description.gripper_dims or not usable:
            return
        dim, sign = self.aperture
        command = np.diff(episode.actions[:, self.description.gripper_dims[0]].astype(np.float64))
        opening = np.diff(episode.states[:, dim].astype(np.float64)) * sign
        if not (command.any() and opening.any()):
            return
        self.rate = episode.control_rate_hz
        self.commands += np.count_nonzero(command)
        self.episodes, self.steps = self.episodes + 1, self.steps + len(command)
        self.squares += command @ command, opening @ opening
        second = min(max(round(self.rate), 1), len(command) - 1)
        for delay in range(-second, second + 1):
            first, last = max(-delay, 0), len(command) - max(delay, 0)
            self.products[delay] += float(command[first:last] @ opening[first + delay : last + delay])

    def problems(self) -> Iterator[Problem]:
        if self.commands < FEWEST_COMMANDS:
            return
        found = {delay: product / np.sqrt(self.squares.prod()) for delay, product in self.products.items()}
        worst = min(found, key=found.__getitem__)
        strong = found[worst] < min(WRONG_SIGN, -CERTAIN / np.sqrt(self.steps))
        if strong and -found[worst] > CLEAR * max(found.values()):
            yield Problem(
                "gripper",
                f"the gripper closes when the action opens it, by {self.commands:,} commands in {self.episodes:,} "
                f"episodes (correlation of the changes {found[worst]:.2f}, {worst / self.rate:.1f} s after the "
                "command); correct the convention in the mapping",
            )
