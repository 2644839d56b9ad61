"""Episodes of a LeRobot dataset (v2.0, v2.1, v3.0), read in place from a folder or from the Hub."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instructvla.hub_source import local_file, local_folder
from instructvla.training.data.episodes import BadEpisodeError, RawEpisode, RecordedField
from instructvla.training.data.lerobot_layout import META_FILES, EpisodeFiles, VideoSpan, read_layout
from instructvla.training.data.video_frames import PICTURE_OPTIONS, pictures_at

KEYS = ("timestamp", "episode_index", "task_index")  # columns that every dataset has


class LerobotReader:
    """`RawReader` of a LeRobot dataset; what it holds between two episodes is only the list in `meta/`.

    Fields keep LeRobot's names. Columns are arrays (T, …), texts are lists, and cameras are lists of encoded pictures:
    those of Parquet files as they are, those of videos decoded at the time stamp of each row and encoded again. "task"
    is the instruction of each row. The metadata is what `meta/` lists of the episode, e.g. "episode_index".

    Args:
        source: folder with `meta/info.json`, or the id of a dataset on the Hub; of that, a file is downloaded when an
            episode in it is read.
        cameras: fields to read of those that hold pictures; all by default. Others cost no decoding and no download.
        picture_format: of frames from videos, "jpeg" (quality 95, 4:4:4) or "png".
        threads: that may decode a video.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: no LeRobot dataset, a version that can't be read, an unknown camera or picture format, no such
            dataset on the Hub.
    """

    def __init__(
        self,
        source: str | Path,
        cameras: Sequence[str] | None = None,
        picture_format: str = "jpeg",
        threads: int = 1,
        revision: str | None = None,
    ):
        if picture_format not in PICTURE_OPTIONS:
            raise ValueError(f"picture_format is {picture_format!r}, but {' and '.join(PICTURE_OPTIONS)} exist.")
        self._source, self._revision = str(Path(source)) if Path(source).is_dir() else str(source), revision
        folder = local_folder(source, META_FILES, revision, repo_type="dataset")
        if not Path(source).is_dir():
            self._revision = folder.name  # the commit: what is downloaded later is of the same one
        self.layout = read_layout(folder)
        self.cameras = self._pictures_of_steps()
        if cameras is not None:
            self.cameras = self.with_cameras(cameras).cameras
        self._picture_format, self._threads = picture_format, threads

    def __len__(self) -> int:
        return len(self.layout)

    def __getitem__(self, index: int) -> RawEpisode:
        """Raises `BadEpisodeError` for an episode that can't be read, IndexError beyond the last."""
        try:
            return self._read(self.layout[index])
        except BadEpisodeError as error:
            raise self._placed(error, self.layout.episodes["episode_index"][index].as_py()) from error

    def _placed(self, error: BadEpisodeError, number: int) -> BadEpisodeError:
        """The same with the dataset's name and the episode's number; files are named relative to the dataset."""
        reason = str(error).replace(f"{self._source}/", "")
        return BadEpisodeError(f"{self._source}, episode_index {number}: {reason}", error.file)

    @property
    def fields(self) -> list[RecordedField]:
        """Those of the rows as meta/info.json tells them, the instruction, and those that meta/ lists of an episode."""
        pictures = self._pictures_of_steps()
        rows = [recorded_field(name, feature, name in pictures) for name, feature in self.layout.features.items()]
        known = {field.name for field in rows}
        rows += [RecordedField(name, "number", (1,)) for name in KEYS if name not in known]
        listed = [RecordedField(name, "text", of_steps=False) for name in self.layout.listed_fields]
        return [*rows, RecordedField("task", "text", note="the instruction"), *listed]

    def with_cameras(self, cameras: Sequence[str]) -> Self:
        """The same with these cameras alone; no video of another one is decoded.

        Raises:
            ValueError: an unknown one.
        """
        existing = self._pictures_of_steps()
        unknown = [name for name in cameras if name not in existing]
        if unknown:
            raise ValueError(f"{self._source} has no camera {', '.join(unknown)}; it has {', '.join(existing)}.")
        reader = copy.copy(self)
        reader.cameras = tuple(cameras)
        return reader

    def without_pictures(self) -> Self:
        """The same without cameras: no video is decoded."""
        return self.with_cameras(())

    def _pictures_of_steps(self) -> tuple[str, ...]:
        return tuple(self.layout.cameras("video") + self.layout.cameras("image"))

    def _read(self, files: EpisodeFiles) -> RawEpisode:
        table = self._table(files)
        try:
            steps: dict[str, Any] = {name: column_values(name, table[name]) for name in table.column_names}
            steps["task"] = self._tasks(steps)
        except BadEpisodeError as error:
            raise BadEpisodeError(f"{files.data_file}: {error}", files.shared_file) from error
        for camera in self.cameras:
            if camera in files.videos:
                steps[camera] = self._pictures(files.videos[camera], steps)
        return RawEpisode(
            steps=steps,
            metadata=files.metadata,
            source=f"{self._source}/{files.data_file}, episode_index {files.episode_index}",
            control_rate_hz=self.layout.fps,
        )

    def _table(self, files: EpisodeFiles) -> pa.Table:
        """The episode's rows; row groups of other episodes are skipped by their statistics."""
        path = self._path(files.data_file)
        wanted = [("episode_index", "==", files.episode_index)] if files.shared else None
        try:
            columns = self._columns(files.data_file, pq.read_schema(path).names)
            table = pq.read_table(path, columns=columns, filters=wanted, use_threads=False, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise BadEpisodeError(
                f"{files.data_file} is truncated or no Parquet file ({error}); copy it again", files.shared_file
            ) from error
        if len(table) != files.length or files.length == 0:
            raise BadEpisodeError(
                f"{files.data_file} has {len(table)} rows of it, but meta/ lists {files.length}; copy both again",
                files.shared_file,
            )
        return table

    def _columns(self, data_file: str, existing: Sequence[str]) -> list[str]:
        others = {name for dtype in ("video", "image") for name in self.layout.cameras(dtype)} - set(self.cameras)
        videos = set(self.layout.cameras("video"))
        promised = {*KEYS, *self.layout.features} - videos - others
        if lacking := sorted(promised - set(existing)):
            raise BadEpisodeError(
                f"{data_file} lacks {', '.join(lacking)}, which meta/info.json promises; it has {', '.join(existing)}"
            )
        return [name for name in existing if name not in videos | others]

    def _tasks(self, steps: Mapping[str, Any]) -> list[str]:
        try:
            return [self.layout.tasks[int(index)] for index in steps["task_index"]]
        except KeyError as error:
            raise BadEpisodeError(
                f"its task_index {error} is not among the {len(self.layout.tasks)} tasks in meta/; copy meta/ again"
            ) from error

    def _pictures(self, span: VideoSpan, steps: Mapping[str, Any]) -> list[bytes]:
        times = span.start + np.asarray(steps["timestamp"], np.float64)
        tolerance = 0.5 / self.layout.fps
        try:
            path = self._path(span.file)
            return pictures_at(path, times, tolerance, span.end, self._picture_format, self._threads)
        except BadEpisodeError as error:
            raise BadEpisodeError(str(error), None if span.end is None else span.file) from error

    def _path(self, name: str) -> Path:
        try:
            return local_file(self._source, name, self._revision, repo_type="dataset")
        except FileNotFoundError as error:
            raise BadEpisodeError(f"{name} is missing; copy it again") from error


def recorded_field(name: str, feature: Mapping[str, Any], is_picture: bool) -> RecordedField:
    """A feature of meta/info.json."""
    if is_picture:
        is_depth = (feature.get("info") or {}).get("video.is_depth_map", False)
        return RecordedField(name, "picture", note="a depth map" if is_depth else "")
    shape, names = tuple(feature.get("shape") or ()), tuple(dimension_names(feature.get("names")))
    kind = "text" if feature["dtype"] == "string" else "number"
    return RecordedField(name, kind, shape, names if len(names) == np.prod(shape) else ())


def dimension_names(names: Any) -> Iterator[str]:
    """The names of a feature's dimensions: LeRobot has them in lists, lists of lists and lists with a title."""
    if isinstance(names, str):
        yield names
    elif isinstance(names, Mapping):
        is_numbered = all(isinstance(value, int) for value in names.values())
        for value in sorted(names, key=names.__getitem__) if is_numbered else names.values():
            yield from dimension_names(value)
    elif isinstance(names, Sequence):
        for value in names:
            yield from dimension_names(value)


def column_values(name: str, column: pa.ChunkedArray) -> np.ndarray | list[Any]:
    """A Parquet column as an array (T, …), or as a list of texts or encoded pictures.

    Raises:
        BadEpisodeError: rows of different lengths, missing pictures, values that are neither numbers nor texts.
    """
    array = column.combine_chunks()
    if isinstance(array.type, pa.BaseExtensionType):  # Array2D … of the datasets package
        array = array.storage
    if pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        return embedded_pictures(name, array.field("bytes"))
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array.to_pylist()
    return numbers(name, array)


def embedded_pictures(name: str, array: pa.Array) -> list[bytes]:
    if array.null_count:
        row = array.is_null().index(True).as_py()
        raise BadEpisodeError(f"row {row} of {name} has no picture in the file; write the dataset with its pictures")
    return array.to_pylist()


def numbers(name: str, array: pa.Array) -> np.ndarray:
    """(T, …) of nested lists that all have the same length; a missing number becomes NaN."""
    shape = [len(array)]
    while pa.types.is_nested(array.type) and hasattr(array, "value_lengths"):
        lengths = array.value_lengths().unique()
        if len(lengths) != 1 or not lengths[0].is_valid:
            raise BadEpisodeError(
                f"the rows of {name} are missing or of different lengths ({lengths.to_pylist()[:5]}); record it again"
            )
        array = array.flatten()
        shape.append(lengths[0].as_py())
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)):
        raise BadEpisodeError(f"{name} holds {array.type}, which is neither numbers, texts nor pictures")
    return array.to_numpy(zero_copy_only=False).reshape(shape)
