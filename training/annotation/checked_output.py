"""A dataset without the entries that were rejected: as VLA-IT's JSON, or as prepared episodes."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructvla.training.annotation.annotation_check import Places
from instructvla.training.annotation.entry_checks import without
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import DescribedReader
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode
from instructvla.training.data.json_records import RecordPlace, scan_records
from instructvla.training.data.prepare import Transform, prepare
from instructvla.training.data.vla_it import (
    LAYOUT,
    Place,
    native_annotation,
    read_record,
    staged_file,
    write_vla_it,
)

JSON = ".json"


class CheckedEpisodes:
    """A reader's episodes without the entries that were rejected; one of whose annotation nothing is left has none.

    Args:
        reader: of the episodes that were checked.
        transforms: what was done with each before.
        left_out: episode's number → its rejected entries.
        origin: JSON values that tell how they were checked.
    """

    def __init__(
        self,
        reader: DescribedReader,
        transforms: Sequence[Transform],
        left_out: Mapping[int, Places],
        origin: Mapping[str, Any],
    ):
        self.reader, self.transforms, self.left_out, self.origin = reader, transforms, left_out, dict(origin)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Episode:
        episode = self.reader[index]
        for transform in self.transforms:
            episode = transform(episode)
        if episode.annotation is None:
            return episode
        annotation = without(episode.annotation, self.left_out.get(index, frozenset()))
        return replace(episode, annotation=None if annotation == Annotation() else annotation)

    def readable(self) -> Iterator[Episode]:
        """All but those that can't be read, which the checks have counted."""
        for index in range(len(self)):
            try:
                yield self[index]
            except BadEpisodeError:
                continue

    @property
    def description(self) -> DatasetDescription:
        return self.reader.description

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from, and what was left out of them."""
        places = [[number, sorted(found)] for number, found in sorted(self.left_out.items())]
        digest = hashlib.sha256(json.dumps(places).encode()).hexdigest()
        return {**self.reader.provenance, "checks": {**self.origin, "left_out": digest}}

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.provenance, sort_keys=True).encode()).hexdigest()


def write_checked_episodes(episodes: CheckedEpisodes, output: Path, source: str, split: str, workers: int) -> None:
    """As VLA-IT's JSON where `output` is such a file, else as prepared episodes in that folder.

    Raises:
        ValueError: as `write_vla_it` and `prepare`.
    """
    if output.suffix == JSON:
        place = episodes.description
        write_vla_it(output, episodes.readable(), place.first_step, place.dropped_steps)
    else:
        prepare(episodes, output, split=split, source=source, skip_bad=True, workers=workers, show_progress=True)


def write_checked_records(source: Path, output: Path, left_out: Mapping[int, Places]) -> None:
    """A VLA-IT annotation file again, without the rejected entries; all else of its records stays as it is.

    Raises:
        ValueError: `output` is no JSON file, or the source itself.
    """
    if output.suffix != JSON or output.resolve() == source.resolve():
        raise ValueError(f"--output {output} must be another {JSON} file, as {source} is one; episodes need a dataset.")
    with staged_file(output) as file:
        current, opening = None, b"{\n"
        for number, record in enumerate(scan_records(source, LAYOUT)):
            if record.outer != current:
                file.write(opening + json.dumps(record.outer).encode() + b": {")
                current, opening, comma = record.outer, b"},\n", b""
            file.write(comma + checked_record(source, record, left_out.get(number)))
            comma = b", "
        file.write(b"}\n}\n" if current is not None else b"{}\n")


def checked_record(source: Path, record: RecordPlace, left_out: Places | None) -> bytes:
    """Key and value of a record without the entries that are left out; as it is where there are none."""
    with source.open("rb") as file:
        file.seek(record.offset)
        fields = file.read(record.length)
    if left_out:
        read = read_record(Place(source, record.outer, record.offset, record.length), record.inner)
        kept = native_annotation(without(read.annotation() or Annotation(), left_out))
        fields = json.dumps({**read.fields, "alt_instruction": kept}, ensure_ascii=False).encode()
    return json.dumps(record.inner).encode() + b": " + fields
