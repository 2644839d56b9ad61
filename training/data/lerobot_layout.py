"""Where a LeRobot dataset keeps each episode: versions v2.0, v2.1 (a file per episode) and v3.0 (several in a file).

Source: the `meta/` folder that the lerobot package writes, compared with lerobot 0.3.2 (v2.1) and 0.4.4 (v3.0).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers.utils import logging

from instructvla.training.data.episodes import BadEpisodeError

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
META_FILES = (INFO, "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes/*", "meta/tasks.parquet")
POINTERS = ("data/", "videos/", "meta/", "stats/", "dataset_from_index", "dataset_to_index")  # not about the episode
logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class VideoSpan:
    """An episode's part of a video file.

    Args:
        file: relative to the dataset.
        start: of the episode, seconds since the file's first frame.
        end: likewise, where the next episode may begin; None if the file holds one episode.
    """

    file: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class EpisodeFiles:
    """What the meta folder tells of one episode.

    Args:
        episode_index: LeRobot's number of it.
        length: steps.
        data_file: Parquet file relative to the dataset.
        shared: whether `data_file` holds other episodes too.
        videos: camera → its part of a video file.
        metadata: everything else that is listed of the episode.
    """

    episode_index: int
    length: int
    data_file: str
    shared: bool
    videos: Mapping[str, VideoSpan]
    metadata: Mapping[str, Any]

    @property
    def shared_file(self) -> str | None:
        """`data_file` if it holds other episodes too."""
        return self.data_file if self.shared else None


@dataclass(frozen=True)
class LerobotLayout:
    """The `meta/` folder; `layout[i]` says where the i-th listed episode is, in the order of their indices.

    Args:
        version: one of `VERSIONS`.
        fps: steps per second.
        features: name → LeRobot's description (dtype, shape, names).
        tasks: task index → instruction.
        episodes: the episodes as listed, one row each.
        templates: of file names, "data" and "video".
        chunks_size: episodes in a folder of v2.
    """

    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: pa.Table
    templates: Mapping[str, str]
    chunks_size: int

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> EpisodeFiles:
        """Raises `BadEpisodeError` if the list has no place of the episode, IndexError beyond the last."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        row = self.episodes.slice(index % len(self), 1).to_pylist()[0]
        try:
            return self._files_of_v3(row) if self.version == "v3.0" else self._files_of_v2(row)
        except (KeyError, TypeError) as error:
            raise BadEpisodeError(
                f"the list in meta/ says nothing of {error}; copy meta/ again, or convert the dataset again"
            ) from error

    @property
    def listed_fields(self) -> list[str]:
        """What the list tells of each episode, beside where its files are."""
        return [name for name in self.episodes.column_names if not name.startswith(POINTERS)]

    def cameras(self, dtype: str) -> list[str]:
        """Names of the features that are pictures: `dtype` is "video" or "image"."""
        return [name for name, feature in self.features.items() if feature["dtype"] == dtype]

    def _files_of_v2(self, row: Mapping[str, Any]) -> EpisodeFiles:
        place = {"episode_chunk": row["episode_index"] // self.chunks_size, "episode_index": row["episode_index"]}
        videos = {
            key: VideoSpan(self.templates["video"].format(video_key=key, **place)) for key in self.cameras("video")
        }
        return self._files(row, self.templates["data"].format(**place), False, videos)

    def _files_of_v3(self, row: Mapping[str, Any]) -> EpisodeFiles:
        def named(template: str, prefix: str, **fields: str) -> str:
            place = {name: int(present(row, f"{prefix}/{name}")) for name in ("chunk_index", "file_index")}
            return self.templates[template].format(**place, **fields)

        videos = {}
        for key in self.cameras("video"):
            prefix = f"videos/{key}"
            start, end = (float(present(row, f"{prefix}/{side}_timestamp")) for side in ("from", "to"))
            videos[key] = VideoSpan(named("video", prefix, video_key=key), start, end)
        return self._files(row, named("data", "data"), True, videos)

    def _files(self, row: Mapping[str, Any], data_file: str, shared: bool, videos: dict) -> EpisodeFiles:
        metadata = {name: value for name, value in row.items() if value is not None and not name.startswith(POINTERS)}
        return EpisodeFiles(row["episode_index"], row["length"], data_file, shared, videos, metadata)


def present(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        raise KeyError(name)
    return row[name]


def read_layout(folder: Path) -> LerobotLayout:
    """The layout of the LeRobot dataset in `folder`; only `meta/` is read.

    Raises:
        ValueError: if the folder holds no LeRobot dataset, one of another version, or a damaged `meta/`.
    """
    info = read_info(folder)
    try:
        layout = LerobotLayout(
            version=info["codebase_version"],
            fps=float(info["fps"]),
            features=info["features"],
            tasks=read_tasks(folder, info["codebase_version"]),
            episodes=read_episodes(folder, info["codebase_version"]),
            templates={"data": info["data_path"], "video": info.get("video_path") or ""},
            chunks_size=int(info.get("chunks_size") or 1000),
        )
    except KeyError as error:
        raise ValueError(f"{folder / INFO} lacks {error}; copy meta/ again.") from error
    check_promises(folder, info, layout)
    return layout


def read_info(folder: Path) -> dict[str, Any]:
    path = folder / INFO
    try:
        info = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is no LeRobot dataset: it has no {INFO}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); copy it again.") from error
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version not in VERSIONS:
        raise ValueError(
            f"{path}: codebase_version is {version!r}, but {', '.join(VERSIONS)} can be read; "
            "convert the dataset with the scripts of the lerobot package."
        )
    return info


def check_promises(folder: Path, info: Mapping[str, Any], layout: LerobotLayout) -> None:
    """What can't be read at all is refused; a wrong total is only told, for datasets are often published in part."""
    if layout.fps <= 0:
        raise ValueError(f"{folder / INFO}: fps is {info['fps']}, but must be positive.")
    if layout.cameras("video") and not layout.templates["video"]:
        raise ValueError(f"{folder / INFO} has video features but no video_path; copy meta/ again.")
    if info.get("total_episodes") not in (None, len(layout)):
        logger.warning(
            f"{folder / INFO} promises {info['total_episodes']} episodes, but the list in meta/ has {len(layout)}: "
            "those are read."
        )


def read_tasks(folder: Path, version: str) -> dict[int, str]:
    """Task index → instruction; in v3.0 the texts are the index of a pandas table, whatever its name."""
    if version != "v3.0":
        path = folder / "meta/tasks.jsonl"
        rows = read_json_lines(path)
        texts = "task"
    else:
        path = folder / "meta/tasks.parquet"
        table = read_meta_table(path)
        rows = table.to_pylist()
        texts = next((field.name for field in table.schema if is_text(field.type)), "task")
    try:
        return {int(row["task_index"]): row[texts] for row in rows}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} has a task without {error}; copy meta/ again.") from error


def read_episodes(folder: Path, version: str) -> pa.Table:
    """The listed episodes, in the order of their indices, without LeRobot's statistics of each (most of v3's bytes)."""
    if version == "v3.0":
        paths = sorted((folder / "meta/episodes").glob("*/*.parquet"))
        source = folder / "meta/episodes"
        tables = [read_meta_table(path, leave_out="stats/") for path in paths]
    else:
        source = folder / "meta/episodes.jsonl"
        tables = [table_of_rows(source, read_json_lines(source))]
    if sum(map(len, tables)) == 0:
        raise ValueError(f"{source} lists no episodes; copy meta/ again.")
    episodes = pa.concat_tables(tables, promote_options="permissive")
    lacking = {"episode_index", "length"} - set(episodes.column_names)
    if lacking or any(episodes[name].null_count for name in ("episode_index", "length")):
        raise ValueError(f"{source} has an episode without {' or '.join(sorted(lacking)) or 'index or length'}.")
    if pc.count_distinct(episodes["episode_index"]).as_py() != len(episodes):
        raise ValueError(f"{source} lists an episode_index twice; remove one of the two.")
    return episodes.sort_by("episode_index")


def table_of_rows(path: Path, rows: list[dict[str, Any]]) -> pa.Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in columns})
    except pa.ArrowException as error:
        raise ValueError(f"{path}: episodes have values of different types ({error}).") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; copy meta/ again.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no JSON ({error}); copy it again.") from error
        if row is not None:
            rows.append(row)
    return rows


def read_meta_table(path: Path, leave_out: str | None = None) -> pa.Table:
    """A Parquet file of `meta/`, without the columns whose name begins with `leave_out`."""
    try:
        with pq.ParquetFile(path) as file:
            names = dict.fromkeys(name for name in file.schema_arrow.names)
            chosen = [name for name in names if leave_out is None or not name.startswith(leave_out)]
            return file.read(columns=chosen).replace_schema_metadata()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; copy meta/ again.") from error
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} is truncated or no Parquet file ({error}); copy it again.") from error


def is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
