"""Everything that was paid for: a line per answer, on the disk before anything else is done with it.

A run's folder holds `journal.jsonl`, or a file for each shard. The first line of a file are the settings that the
answers follow from; then come, in the order in which they happened:

    {"reply": {…}}     a model's answer, also one that can't be used
    {"excluded": {…}}  an episode that is not asked about, and why
    {"batch": {…}}     a batch of the provider's batch API, or what has changed about one

A file is only added to. A last line that a kill left half-written is cut off by the next run.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from instructvla.training.annotation.answer_format import UnusableAnswerError, parse_answer
from instructvla.training.data.preparation_journal import require_same

NAME, PATTERN = "journal.jsonl", "journal*.jsonl"
ROOM = 64 * 2**20  # bytes of the disk that must be free before a question is asked, for the answers under way

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PaidReply:
    """
    Args:
        episode: its number in the dataset.
        instruction: that the model was told.
        text: of the answer.
        prompt_tokens, completion_tokens: that it took.
        cost: in dollars; None where the prices are unknown.
        model: that answered, as the endpoint names it.
        problem: why the endpoint's answer is no whole one, or None.
        batch: that it came in, or None.
    """

    episode: int
    instruction: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    cost: float | None = None
    model: str = ""
    problem: str | None = None
    batch: str | None = None


@dataclass(frozen=True)
class Batch:
    """
    Args:
        name: ours, which the provider keeps as metadata.
        instructions: number → instruction of the episodes in it.
        batch_id: the provider's; None as long as it is not known to be created.
        done: whether all that came of it is in the journal.
    """

    name: str
    instructions: Mapping[int, str]
    batch_id: str | None = None
    done: bool = False


class Place(NamedTuple):
    """Where a usable answer is."""

    path: Path
    offset: int
    length: int


class AnnotationJournal:
    """The answers of all shards in a folder, and the file that this run adds to. A context manager.

    Attributes:
        answers: episode's number → where its usable answer is.
        asked: episode's number → how many answers were paid for.
        unusable: why answers could not be used → how many.
        rejected: episode's number → its last answer that could not be used, and why, as long as it has no usable one.
        excluded: episode's number → why it is not asked about.
        batches: name → batch.
        models: that answered → how many answers.
        prompt_tokens, completion_tokens: of all answers.
        cost: of all answers with a known price, in dollars.
        unpriced: number of answers without one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, self.settings = folder, dict(settings)
        self.answers: dict[int, Place] = {}
        self.asked: Counter[int] = Counter()
        self.unusable: Counter[str] = Counter()
        self.rejected: dict[int, tuple[Place, str]] = {}
        self.excluded: dict[int, str] = {}
        self.batches: dict[str, Batch] = {}
        self.models: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = self.unpriced = 0
        self.cost = 0.0
        self._twins: dict[bytes, tuple[int, str]] = {}
        self._collected: set[tuple[str, int]] = set()
        self.path: Path | None = None  # of the file that is added to
        self._file: int | None = None
        self._size = 0

    @classmethod
    def read(cls, folder: Path, settings: Mapping[str, Any]) -> Self:
        """What the journals of a folder hold, without a lock: nothing can be added.

        Raises:
            ValueError: a journal of other settings, or a line that is none of a journal's.
        """
        journal = cls(folder, settings)
        for path in sorted(folder.glob(PATTERN)):
            journal._replay(path)
        return journal

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any], shard: tuple[int, int] = (1, 1)) -> Self:
        """As `read`, and the file of this shard locked and ready to be added to.

        Args:
            shard: which of how many.

        Raises:
            ValueError: as `read`; another run adds to it; the folder can't be written.
        """
        number, count = shard
        path = folder / (NAME if count == 1 else f"journal-{number:05d}-of-{count:05d}.jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()) and not any(folder.glob(PATTERN)):
                raise ValueError(f"--output {folder} holds something else; give a new folder.")
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise ValueError(f"--output {folder} can't be written: {error}. Give another folder.") from error
        try:
            lock(file, path)
            journal = cls(folder, settings)
            journal._file, journal.path = file, path
            for other in sorted(folder.glob(PATTERN)):
                end = journal._replay(other)
                journal._size = end if other == path else journal._size
            os.ftruncate(file, journal._size)
        except BaseException:
            os.close(file)
            raise
        if not journal._size:
            journal._append({"settings": journal.settings})
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, reply: PaidReply) -> str | None:
        """Keep an answer; once this returns it is on the disk. Why it can't be used, or None.

        Raises:
            ValueError: the journal can't be written; what it held before is whole.
        """
        place = self._append({"reply": asdict(reply)})
        return self._take(reply, place)

    def exclude(self, episode: int, reason: str) -> None:
        self._append({"excluded": {"episode": episode, "reason": reason}})
        self.excluded[episode] = reason

    def add_batch(self, batch: Batch) -> None:
        """Before it is created."""
        self._append({"batch": asdict(batch)})
        self.batches[batch.name] = batch

    def update_batch(self, name: str, **changes: Any) -> None:
        """What has become of a batch: its `batch_id`, or that it is `done`."""
        self._append({"batch": {"name": name, **changes}})
        self.batches[name] = replace(self.batches[name], **changes)

    def is_collected(self, batch: str, episode: int) -> bool:
        """Whether a batch's answer about an episode is here already."""
        return (batch, episode) in self._collected

    def require_room(self) -> None:
        """Before a question is asked: the answer must find room on the disk.

        Raises:
            ValueError: there is none.
        """
        if (free := shutil.disk_usage(self.folder).free) < ROOM:
            raise ValueError(
                f"--output {self.folder}: the disk has {free / 1e6:.0f} MB left, and answers that are paid for might "
                f"be lost. Free {ROOM / 1e6:.0f} MB, then run again: it goes on where it stopped."
            )

    def open_batches(self) -> list[Batch]:
        return [batch for batch in self.batches.values() if not batch.done]

    def _append(self, line: Mapping[str, Any]) -> Place:
        content = json.dumps(line).encode() + b"\n"
        place = Place(self.path, self._size, len(content))
        try:
            left = content
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise ValueError(
                f"{self.path} can't be written: {error}. What it held before is whole: free some space, then run again."
            ) from error
        self._size += len(content)
        return place

    def _replay(self, path: Path) -> int:
        """Take in a file's whole lines; where the last of them ends."""
        end = 0
        for number, (place, content) in enumerate(whole_lines(path), start=1):
            try:
                ((kind, value),) = json.loads(content).items()
                if (kind == "settings") != (number == 1):
                    raise ValueError(f"{kind} is out of place")
                self._replay_line(kind, value, place)
            except OtherSettingsError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number} is no line of a journal ({error}); put the file back as it was."
                ) from error
            end = place.offset + place.length
        return end

    def _replay_line(self, kind: str, value: dict[str, Any], place: Place) -> None:
        if kind == "settings":
            try:
                require_same(value, self.settings, f"{place.path} was begun")
            except ValueError as error:
                raise OtherSettingsError(str(error)) from error
        elif kind == "reply":
            self._take(PaidReply(**value), place)
        elif kind == "excluded":
            self.excluded[value["episode"]] = value["reason"]
        elif kind == "batch":
            self._take_batch(**value)
        else:
            raise ValueError(f"{kind} is unknown")

    def _take_batch(self, name: str, instructions: Mapping[str, str] | None = None, **changes: Any) -> None:
        known = self.batches.get(name)
        if known is None:
            known = Batch(name, {int(episode): text for episode, text in instructions.items()})
        self.batches[name] = replace(known, **changes)

    def _take(self, reply: PaidReply, place: Place) -> str | None:
        """Count an answer, and keep where it is if it can be used."""
        self.asked[reply.episode] += 1
        self.models[reply.model] += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.cost += reply.cost or 0
        self.unpriced += reply.cost is None
        problem = reply.problem or self._problem_of(reply)
        if problem is None:
            self.answers.setdefault(reply.episode, place)
            self.rejected.pop(reply.episode, None)
        else:
            self.unusable[problem] += 1
            if reply.episode not in self.answers:
                self.rejected[reply.episode] = place, problem
        if reply.batch is not None:
            self._collected.add((reply.batch, reply.episode))
        return problem

    def _problem_of(self, reply: PaidReply) -> str | None:
        try:
            parse_answer(reply.text)
        except UnusableAnswerError as error:
            return str(error)
        digest = hashlib.blake2b(reply.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        episode, instruction = self._twins.setdefault(digest, (reply.episode, reply.instruction))
        if episode != reply.episode and instruction != reply.instruction:
            return "it is word for word the answer about another episode, whose instruction is another"
        return None


class OtherSettingsError(ValueError):
    """A journal whose answers follow from other settings than this run's."""


def reply_at(place: Place) -> PaidReply:
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return PaidReply(**json.loads(file.read(place.length))["reply"])


def whole_lines(path: Path) -> Iterator[tuple[Place, bytes]]:
    """The lines of a file, without one at the end that is not finished."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield Place(path, offset, len(line)), line
            offset += len(line)


def lock(file: int, path: Path) -> None:
    """A lock of the operating system, which ends with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another `instructvla annotate` adds to {path}. Wait for it to end, give another --output, or share the "
            "work: --shard 1/2 and --shard 2/2."
        ) from error
    except OSError as error:  # some network file systems have no locks
        logger.warning("%s can't be locked (%s): let no other run add to it", path, os.strerror(error.errno))
