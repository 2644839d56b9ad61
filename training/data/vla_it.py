"""VLA-IT's annotations (paper section 4.1) in the layout that the authors publish, joined to episodes.

    {file_path: {episode_id: {
        "features": {"move_primitive": [text, …]},
        "alt_instruction": {"Caption": text, "QA" | "CR" | "CC": [{"question": text, "answer": text}, …]}}}}

`move_primitive` has one text per step of the recording, counted from its first: an assumption, as no rule is published.
A list of another length is joined as far as it goes, and reported; one of a single text, as in the example records that
the authors show, tells the motion of the first step alone. Any part may be absent or null; a text that is empty, "None"
or "null" counts as absent, and nothing that is absent gets a text. Other fields of a record are ignored.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode, Turn
from instructvla.training.data.json_records import scan_records

LAYOUT = "{file_path: {episode_id: {features: …, alt_instruction: …}}}"
RECORD_FIELDS = ("features", "alt_instruction")
FEWEST_COMPONENTS = 4  # of a path, that tell one recording from another
ABSENT = ("", "None", "null")
EXAMPLES = 3  # of episodes in the report


class Place(NamedTuple):
    """Where a record is: file, bytes in it, and the file path that it annotates."""

    source: Path
    file_path: str
    offset: int
    length: int


@dataclass(frozen=True)
class JoinReport:
    """How well annotations and episodes fit, in numbers of episodes.

    Args:
        matched: with a record.
        not_found: without one.
        unused: records that no episode asked for.
        misfits: matched, but with a number of motions that is not the recording's number of steps.
        single: matched, with the motion of the first step alone.
        examples: of those not found.
        misfit_examples: with both numbers.
    """

    matched: int
    not_found: int
    unused: int
    misfits: int = 0
    single: int = 0
    examples: tuple[str, ...] = ()
    misfit_examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = (
            f"VLA-IT: {self.matched:,} episodes matched, {self.not_found:,} not found{such_as(self.examples)}, "
            f"{self.unused:,} annotations unused"
        )
        if self.misfits:
            text += f", {self.misfits:,} with another number of motions than steps{such_as(self.misfit_examples)}"
        return text + (f", {self.single:,} with the first step's motion alone" if self.single else "")


def such_as(examples: Sequence[str]) -> str:
    return f" (such as {'; '.join(examples)})" if examples else ""


class VlaItIndex:
    """Where in the annotation files each recording's record is; a record is read when its episode comes.

    Two paths name the same recording if the episode's path ends with what identifies the annotation's path: its
    components below the folder that all paths of that annotation file share, though never fewer than the last four (or
    the whole path, if it has fewer). So "/nfs/…/numpy_256/bridge_data_v2/…/out.npy" meets
    "/home/me/bridge_data_v2/…/out.npy". Of several such annotation paths the longest counts. Episode ids are compared
    as text.
    """

    def __init__(self, places: Mapping[tuple[str, ...], Mapping[str, Place]]):
        self.places = places
        self.lengths = sorted({len(parts) for parts in places}, reverse=True)
        self.matched: set[tuple[tuple[str, ...], str]] = set()
        self.not_found: set[tuple[str | None, str]] = set()
        self.misfits: dict[tuple[str | None, str], str] = {}
        self.single: set[tuple[str | None, str]] = set()

    @classmethod
    def read(cls, paths: Sequence[str | Path]) -> Self:
        """The index of annotation files; only their keys stay in memory.

        Raises:
            ValueError: for a file that is missing, cut off or of another layout, and for a recording annotated twice.
        """
        places: dict[tuple[str, ...], dict[str, Place]] = {}
        for path in map(Path, paths):
            if not path.is_file():
                raise ValueError(f"{path} is no file; give VLA-IT annotation files such as bridge_instruction.json.")
            for parts, episodes in identified(read_places(path)):
                known = places.setdefault(parts, {})
                for episode_id, place in episodes.items():
                    if (other := known.setdefault(episode_id, place)) is not place:
                        raise ValueError(
                            f"{path}: {place.file_path}, episode {episode_id} is annotated twice, also in "
                            f"{other.source}; leave one of them out."
                        )
        return cls(places)

    def __len__(self) -> int:
        """Number of annotated episodes."""
        return sum(map(len, self.places.values()))

    def join(self, episode: Episode, first_step: int = 0, dropped_steps: int | None = None) -> Episode:
        """The episode with the motions and the annotation of its record; what the record lacks stays as it is.

        Args:
            first_step: number of steps at the start of the recording that the episode leaves out (1 where a mapping
                drops Bridge's first step); motions are counted from the recording's first.
            dropped_steps: number of steps that the episode leaves out at both ends; `first_step` by default.

        Raises:
            BadEpisodeError: for a malformed record, naming file, path, episode and field.
        """
        found = self._find(episode)
        if found is None:
            self.not_found.add((episode.file_path, episode.episode_id))
            return episode
        self.matched.add(found)
        parts, episode_id = found
        place = self.places[parts][episode_id]
        record = read_record(place, episode_id)
        motions = record.motions()
        self._compare(episode, len(motions), len(episode) + (first_step if dropped_steps is None else dropped_steps))
        motions = motions[first_step : first_step + len(episode)]
        motions += [None] * (len(episode) - len(motions))
        old = episode.language_motions or [None] * len(episode)
        merged = [before if new is None else new for before, new in zip(old, motions, strict=True)]
        annotation = record.annotation() or episode.annotation
        has_motion = any(motion is not None for motion in merged)
        return replace(episode, language_motions=merged if has_motion else None, annotation=annotation)

    def report(self) -> JoinReport:
        """Of the episodes joined so far; each counts once."""
        missing = sorted(f"{path or 'no file path'}, episode {episode_id}" for path, episode_id in self.not_found)
        misfits = [f"{path}, episode {episode_id}: {what}" for (path, episode_id), what in self.misfits.items()]
        return JoinReport(
            matched=len(self.matched),
            not_found=len(self.not_found),
            unused=len(self) - len(self.matched),
            misfits=len(misfits),
            single=len(self.single),
            examples=tuple(missing[:EXAMPLES]),
            misfit_examples=tuple(misfits[:EXAMPLES]),
        )

    def _compare(self, episode: Episode, motions: int, steps: int) -> None:
        """Note a record whose motions are not one per recorded step."""
        key = (episode.file_path, episode.episode_id)
        if motions == 1 and steps > 1:
            self.single.add(key)
        elif motions not in (0, steps):
            self.misfits[key] = f"{motions} motions, {steps} recorded steps"

    def _find(self, episode: Episode) -> tuple[tuple[str, ...], str] | None:
        parts = path_parts(episode.file_path or "")
        for length in self.lengths:
            suffix = parts[-length:]
            if len(suffix) == length and suffix in self.places:
                known = episode.episode_id in self.places[suffix]
                return (suffix, episode.episode_id) if known else None
        return None


def write_vla_it(
    path: str | Path, episodes: Iterable[Episode], first_step: int = 0, dropped_steps: int | None = None
) -> int:
    """Writes annotations in the published layout, whole or not at all; returns the number of records.

    Episodes with neither motion nor annotation get no record. The authors' reader finds an annotation through the
    motions of its steps, so that an annotated episode without motions gets a null for each step.

    Args:
        episodes: read once; only their texts stay in memory until the end.
        first_step, dropped_steps: as in `VlaItIndex.join`; the steps that the episodes leave out get no motion.

    Raises:
        ValueError: for an episode without file path, or given twice.
    """
    records: dict[str, dict[str, bytes]] = {}
    last_steps = 0 if dropped_steps is None else dropped_steps - first_step
    for episode in episodes:
        if episode.annotation is None and not any(episode.language_motions or ()):
            continue
        name = f"{episode.dataset}/{episode.episode_id}"
        if not episode.file_path:
            raise ValueError(
                f"{name} has no file path, by which VLA-IT's layout names it; set file_path in its mapping."
            )
        known = records.setdefault(episode.file_path, {})
        if episode.episode_id in known:
            raise ValueError(f"{name} of {episode.file_path} comes twice; VLA-IT's layout holds one record of each.")
        known[episode.episode_id] = json.dumps(
            native_record(episode, first_step, last_steps), ensure_ascii=False
        ).encode()
    with staged_file(Path(path)) as file:
        for number, (file_path, known) in enumerate(records.items()):
            file.write(b"%s%s: {" % (b",\n" if number else b"{\n", json.dumps(file_path).encode()))
            file.write(b", ".join(b"%s: %s" % (json.dumps(key).encode(), record) for key, record in known.items()))
            file.write(b"}")
        file.write(b"\n}\n" if records else b"{}\n")
    return sum(map(len, records.values()))


def native_record(episode: Episode, first_step: int = 0, last_steps: int = 0) -> dict[str, Any]:
    """The episode's record in the published layout, with a null for each step that it leaves out."""
    motions = list(episode.language_motions or [None] * len(episode))
    record = {"features": {"move_primitive": [None] * first_step + motions + [None] * last_steps}}
    if episode.annotation is not None:
        record["alt_instruction"] = native_annotation(episode.annotation)
    return record


def native_annotation(annotation: Annotation) -> dict[str, Any]:
    """An annotation in the published layout."""
    return {
        "Caption": annotation.caption,
        "CR": native_turns(annotation.rewritten),
        "CC": native_turns(annotation.contexts),
        "QA": native_turns(annotation.questions),
    }


def native_turns(turns: Iterable[Turn]) -> list[dict[str, str]]:
    return [{"question": turn.question, "answer": turn.answer} for turn in turns]


@contextmanager
def staged_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends without error, and not otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.partial")
    try:
        with staged.open("wb") as file:
            yield file
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def path_parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def read_places(path: Path) -> dict[str, dict[str, Place]]:
    """Places of the records by file path and episode id.

    Raises:
        ValueError: as `VlaItIndex.read`.
    """
    places: dict[str, dict[str, Place]] = {}
    for outer, inner, offset, length in scan_records(path, LAYOUT):
        if inner in RECORD_FIELDS:
            raise ValueError(f"{path}: {outer} holds {inner} itself; records must lie under an episode id: {LAYOUT}.")
        known = places.setdefault(outer, {})
        if inner in known:
            raise ValueError(f"{path}: {outer}, episode {inner} is annotated twice; leave one of them out.")
        known[inner] = Place(path, outer, offset, length)
    return places


def identified(places: Mapping[str, dict[str, Place]]) -> Iterator[tuple[tuple[str, ...], dict[str, Place]]]:
    """The episodes of one annotation file by what identifies their path (see `VlaItIndex`)."""
    shared = len(os.path.commonprefix([path_parts(path)[:-1] for path in places]))
    for path, episodes in places.items():
        parts = path_parts(path)
        yield parts[min(shared, max(len(parts) - FEWEST_COMPONENTS, 0)) :], episodes


def read_record(place: Place, episode_id: str) -> "Record":
    """The record at a place.

    Raises:
        BadEpisodeError: if it can't be read there any more, or is no object.
    """
    name = f"{place.source}: {place.file_path}, episode {episode_id}"
    try:
        with place.source.open("rb") as file:
            file.seek(place.offset)
            fields = json.loads(file.read(place.length))
    except (OSError, ValueError) as error:
        raise BadEpisodeError(
            f"{name}: the file has changed or gone since it was indexed ({error}); start again"
        ) from error
    return Record(name, fields)


@dataclass(frozen=True)
class Record:
    """One episode's published record; reading a field raises `BadEpisodeError` where it has another type than it must.

    Args:
        name: file, path and episode, for messages.
        fields: the JSON value.
    """

    name: str
    fields: Any

    def motions(self) -> list[str | None]:
        """One per step of the recording, as far as the record goes."""
        features = self._part("features", self._part("", self.fields).get("features"))
        given = self._typed("features.move_primitive", features.get("move_primitive"), list, "a list of texts") or []
        return [self._text(f"features.move_primitive[{step}]", motion) for step, motion in enumerate(given)]

    def annotation(self) -> Annotation | None:
        """None where nothing is annotated. Of several captions the first counts."""
        given = self._part("alt_instruction", self._part("", self.fields).get("alt_instruction"))
        annotation = Annotation(
            caption=self._caption(given.get("Caption")),
            questions=self._turns("QA", given.get("QA")),
            rewritten=self._turns("CR", given.get("CR")),
            contexts=self._turns("CC", given.get("CC")),
        )
        return None if annotation == Annotation() else annotation

    def _caption(self, given: Any) -> str | None:
        captions = given if isinstance(given, list) else [given]
        texts = (self._text("alt_instruction.Caption", caption) for caption in captions)
        return next(filter(None, texts), None)

    def _turns(self, kind: str, given: Any) -> tuple[Turn, ...]:
        """The complete turns of a list, or of a single one."""
        place = f"alt_instruction.{kind}"
        listed = [given] if isinstance(given, dict) else given
        turns = []
        for number, turn in enumerate(self._typed(place, listed, list, "a list of questions and answers") or []):
            field = f"{place}[{number}]"
            turn = self._part(field, turn)
            question, answer = (self._text(f"{field}.{key}", turn.get(key)) for key in ("question", "answer"))
            if question and answer:
                turns.append(Turn(question, answer))
        return tuple(turns)

    def _part(self, field: str, value: Any) -> dict[str, Any]:
        return self._typed(field, value, dict, "an object") or {}

    def _text(self, field: str, value: Any) -> str | None:
        text = (self._typed(field, value, str, "a text") or "").strip()
        return None if text in ABSENT else text

    def _typed(self, field: str, value: Any, kind: type, wanted: str) -> Any:
        if value is None or isinstance(value, kind):
            return value
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
        raise BadEpisodeError(f"{self.name}: {field or 'the record'} is {shown}, but must be {wanted} or null")
