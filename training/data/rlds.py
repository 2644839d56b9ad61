"""RLDS episodes in TFDS's TFRecord files (Bridge, Fractal, LIBERO, any of Open X-Embodiment), without TensorFlow."""

import json
import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

from instructvla.training.data.episodes import RawEpisode, RecordedField
from instructvla.training.data.tf_example import parse_example
from instructvla.training.data.tfds_features import Column, Example, Feature, read_features
from instructvla.training.data.tfrecord import TFRecordFile

STEPS = "steps/"
_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.tfrecord-(?P<index>\d{5,})-of-(?P<count>\d{5,})")


class RldsReader:
    """A `RawReader` of one split: files in the order of their numbers, episodes in the order of their records.

    Names of step fields are relative to "steps": "observation/image_0", "action", "language_instruction". Pictures stay
    encoded; a tensor of pixels is an array. A field whose length differs from step to step is a list of arrays.

    Args:
        folder: with features.json, or its parent where that has one version.
        split: "train", "val", …

    Raises:
        ValueError: no such dataset or split, a missing shard, features that can't be read.
    """

    def __init__(self, folder: str | Path, split: str = "train"):
        self.folder = version_folder(Path(folder))
        self.split = split
        features = read_features(self.folder / "features.json")
        self._step_features = [feature for feature in features if feature.name.startswith(STEPS) and feature.levels]
        self._episode_features = [feature for feature in features if feature not in self._step_features]
        if not self._step_features:
            names = ", ".join(feature.name for feature in features)
            raise ValueError(
                f"{self.folder} holds no episodes: an RLDS dataset has a sequence `steps`, this has {names}"
            )
        paths = _shard_paths(self.folder, split)
        self._files = [TFRecordFile(path) for path in paths]
        told = _told_lengths(self.folder, split, len(paths)) or [0] * len(paths)
        self._ends = list(accumulate(max(len(file), length) for file, length in zip(self._files, told, strict=True)))

    @property
    def fields(self) -> list[RecordedField]:
        """Those of the steps, then those of the episode, as features.json tells them."""
        of_steps = [_recorded(feature, True) for feature in self._step_features]
        return of_steps + [_recorded(feature, False) for feature in self._episode_features]

    def __len__(self) -> int:
        """Counts the episodes that dataset_info.json tells but a file has lost; reading one of these raises."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> RawEpisode:
        """Episode `index` of the split.

        Raises:
            BadEpisodeError: the record is truncated, corrupted, or not as features.json tells.
            IndexError: there is no such episode.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"split {self.split!r} of {self.folder} has {len(self)} episodes, there is no {index}")
        shard = bisect_right(self._ends, index)
        return self._episode(self._files[shard], index - (self._ends[shard - 1] if shard else 0))

    def _episode(self, file: TFRecordFile, record: int) -> RawEpisode:
        if record >= len(file):
            raise file.lost(record)
        data = file[record]
        try:
            example = parse_example(data)
            steps = _steps(self._step_features, example)
            metadata = {feature.name: feature.decode(example) for feature in self._episode_features}
        except ValueError as error:
            raise file.bad(record, str(error)) from error
        return RawEpisode(steps, metadata, f"{file.path}, record {record}")


def _recorded(feature: Feature, of_steps: bool) -> RecordedField:
    return RecordedField(
        name=feature.name.removeprefix(STEPS) if of_steps else feature.name,
        kind={"number": "number", "image": "picture"}.get(feature.kind, "text"),
        shape=(None,) * (feature.levels - of_steps) + feature.shape,
        note=feature.description,
        of_steps=of_steps,
    )


def _steps(features: list[Feature], example: Example) -> dict[str, Column]:
    decoded = {feature.name.removeprefix(STEPS): feature.decode(example) for feature in features}
    columns = {name: column for name, column in decoded.items() if column is not None}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"its fields must have one number of steps, at least 1, but have {lengths}")
    return columns


def version_folder(folder: Path) -> Path:
    """The folder with features.json: the given one, or the only one up to two levels below (else ValueError)."""
    if (folder / "features.json").is_file():
        return folder
    found = sorted(path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/features.json"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{folder} holds several datasets or versions, give one: {', '.join(map(str, found))}")
    raise ValueError(f"{folder} is no TFDS dataset: give the folder of one version, which has a features.json")


def _shard_paths(folder: Path, split: str) -> list[Path]:
    """All shards of a split; refuses a split that is unknown, in two builds or not whole."""
    matches = [match for path in sorted(folder.iterdir()) if (match := _SHARD.fullmatch(path.name))]
    present = {match.string for match in matches if match["split"] == split}
    builds = sorted({(match["name"], match["count"]) for match in matches if match["split"] == split})
    if not builds:
        splits = sorted({match["split"] for match in matches})
        raise ValueError(f"{folder} has no split {split!r} in TFRecord files; {_what_is_there(folder, splits)}")
    if len(builds) > 1:
        names = ", ".join(f"{name}-{split}.tfrecord-*-of-{count}" for name, count in builds)
        raise ValueError(f"{folder} holds split {split!r} more than once: keep one of {names}")
    name, count = builds[0]
    wanted = [f"{name}-{split}.tfrecord-{index:0{len(count)}d}-of-{count}" for index in range(int(count))]
    missing = [shard for shard in wanted if shard not in present]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{folder} lacks {', '.join(missing[:3])}{more} of split {split!r}: download the rest of it")
    return [folder / shard for shard in wanted]


def _what_is_there(folder: Path, splits: list[str]) -> str:
    if splits:
        return f"its splits are {', '.join(splits)}"
    written_as = _dataset_info(folder).get("fileFormat", "tfrecord")
    return "download them" if written_as == "tfrecord" else f"they are {written_as}: download or write them as tfrecord"


def _dataset_info(folder: Path) -> dict[str, Any]:
    path = folder / "dataset_info.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; download it again, or remove it") from error


def _told_lengths(folder: Path, split: str, shards: int) -> list[int] | None:
    """How many records dataset_info.json says that each shard has; None where it doesn't say."""
    for told in _dataset_info(folder).get("splits", []):
        if told.get("name") == split and "shardLengths" in told:
            lengths = [int(length) for length in told["shardLengths"]]
            if len(lengths) != shards:
                raise ValueError(
                    f"{folder / 'dataset_info.json'} tells {len(lengths)} shards of split {split!r}, there are "
                    f"{shards}: it belongs to another download; download it again, or remove it"
                )
            return lengths
    return None
