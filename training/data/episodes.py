"""One recorded robot episode, the same whatever it was read from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class BadEpisodeError(ValueError):
    """An episode that can't be read: the message names its file, its place there and the remedy.

    Args:
        message: for a person.
        file: the file that is to blame, where other episodes are in it too.
    """

    def __init__(self, message: str, file: str | None = None):
        super().__init__(message)
        self.file = file

    def with_skip_bad(self) -> "BadEpisodeError":
        """The same for a command that can go on without the episode."""
        return BadEpisodeError(f"{str(self).rstrip('.')}; --skip-bad goes on without such episodes", self.file)


@dataclass(frozen=True)
class Turn:
    """A question or command, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Annotation:
    """VLA-IT's annotation of an episode (paper section 4.1); what is missing stays missing.

    Args:
        caption: of the scene.
        questions: about the scene (QA).
        rewritten: rewritten commands, with what the robot answers (CR).
        contexts: created contexts, with what the robot answers (CC).
    """

    caption: str | None = None
    questions: tuple[Turn, ...] = ()
    rewritten: tuple[Turn, ...] = ()
    contexts: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Episode:
    """T steps of one robot, column by column.

    Args:
        dataset: key of its statistics, `unnorm_key`.
        episode_id: as recorded; unique in the dataset together with `file_path` (Bridge counts within each file).
        images: camera → T encoded pictures (JPEG or PNG).
        actions: (T, action_dim) float32, physical units; a gripper is 1 open, 0 closed.
        states: (T, state_dim) float32, physical units, or None.
        instructions: T of them; None where the recording has none.
        control_rate_hz: steps per second.
        language_motions: T of them (`language_motion`); None where unknown.
        annotation: VLA-IT's, or None.
        file_path: of the original recording; VLA-IT's annotations name it.

    Raises:
        ValueError: columns of different lengths, or arrays of another shape or type.
    """

    dataset: str
    episode_id: str
    images: Mapping[str, list[bytes]]
    actions: np.ndarray
    states: np.ndarray | None
    instructions: list[str | None]
    control_rate_hz: float
    language_motions: list[str | None] | None = None
    annotation: Annotation | None = None
    file_path: str | None = None

    def __post_init__(self):
        name, steps = f"{self.dataset}/{self.episode_id}", len(self.actions)
        for column in ("actions", "states"):
            values = getattr(self, column)
            if values is not None and (values.ndim != 2 or values.dtype != np.float32):
                raise ValueError(f"{name}: {column} must be (T, dimensions) float32, got {values.shape} {values.dtype}")
        lengths = {f"images[{camera!r}]": len(pictures) for camera, pictures in self.images.items()}
        for column in ("states", "instructions", "language_motions"):
            if getattr(self, column) is not None:
                lengths[column] = len(getattr(self, column))
        wrong = {column: length for column, length in lengths.items() if length != steps}
        if wrong or steps == 0:
            raise ValueError(f"{name}: there are {steps} actions, but of other columns {wrong or 'nothing'}")

    def __len__(self) -> int:
        return len(self.actions)


class EpisodeReader(Protocol):
    """Episodes by number, in an order that never changes; a position is a number, so any run can be resumed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Episode:
        """Raises `BadEpisodeError` for an episode that can't be read, IndexError beyond the last."""
        ...


@dataclass(frozen=True)
class RawEpisode:
    """What a file format holds, before a `FieldMapping` says what it means.

    Args:
        steps: field → T values, an array (T, …) or a list of encoded pictures, of texts or, where their shapes differ,
            of arrays. Nested fields are joined by "/", e.g. "observation/image_0"; LeRobot's own names
            ("observation.images.cam_high") stay as they are.
        metadata: fields of the episode as a whole, joined in the same way, e.g. "episode_metadata/file_path".
        source: file and record, for messages and ids.
        control_rate_hz: where the format tells it.
    """

    steps: Mapping[str, np.ndarray | list[bytes] | list[str] | list[np.ndarray]]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    control_rate_hz: float | None = None


@dataclass(frozen=True)
class RecordedField:
    """What a format's metadata tell of a field, before an episode is read.

    Args:
        name: as in `RawEpisode`.
        kind: "number", "picture", or "text", which may hold encoded pictures too.
        shape: of one step's value; None where a length differs.
        names: of its dimensions, where the format tells them.
        note: what the format says about it, in words.
        of_steps: False for a field of the episode as a whole.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] = ()
    names: tuple[str, ...] = ()
    note: str = ""
    of_steps: bool = True


class RawReader(Protocol):
    """As `EpisodeReader`, of `RawEpisode`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RawEpisode: ...
