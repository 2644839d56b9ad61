"""Episodes in Parquet: a row per frame, a row group per episode, readable by `datasets` and shown by the Hub's viewer.

Columns: episode_id, frame_index, dataset, `images.<camera>` (encoded pictures), state and action (fixed-size
float32), instruction, language_motion, annotation (caption, qa, cr, cc), control_rate_hz, file_path. What a recording
lacks is null.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode, Turn

FORMAT = "instructvla-episodes"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
IMAGES = "images."
TURNS = {"qa": "questions", "cr": "rewritten", "cc": "contexts"}  # column: field of an Annotation
DAMAGED = (pa.ArrowException, OSError, EOFError)


def episode_schema(description: DatasetDescription) -> pa.Schema:
    """Arrow schema with the features of `datasets`, so that pictures are pictures for every reader."""
    from datasets import Features, Image, List, Value  # seconds to import, and only writing needs it

    string, turns = Value("string"), List({"question": Value("string"), "answer": Value("string")})
    vectors = {"state": len(description.state_names), "action": len(description.action_names)}
    return Features(
        {
            "episode_id": string,
            "frame_index": Value("int32"),
            "dataset": string,
            **{f"{IMAGES}{camera}": Image() for camera in description.cameras},
            **{name: List(Value("float32"), length=size) for name, size in vectors.items() if size},
            "instruction": string,
            "language_motion": string,
            "annotation": {"caption": string, **{column: turns for column in TURNS}},
            "control_rate_hz": Value("float64"),
            "file_path": string,
        }
    ).arrow_schema


def episode_table(episode: Episode, schema: pa.Schema) -> pa.Table:
    """One row per frame.

    Raises:
        BadEpisodeError: its cameras, its state's or its action's size are not those of the schema.
    """
    check_columns(episode, schema)
    steps = len(episode)
    columns = {
        "episode_id": [episode.episode_id] * steps,
        "frame_index": list(range(steps)),
        "dataset": [episode.dataset] * steps,
        "instruction": episode.instructions,
        "language_motion": episode.language_motions or [None] * steps,
        "annotation": [annotation_row(episode.annotation)] * steps,
        "control_rate_hz": [episode.control_rate_hz] * steps,
        "file_path": [episode.file_path] * steps,
    }
    for camera, pictures in episode.images.items():
        columns[f"{IMAGES}{camera}"] = [{"bytes": picture, "path": None} for picture in pictures]
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    for name, values in (("state", episode.states), ("action", episode.actions)):
        if name in schema.names:
            arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field(name).type)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def check_columns(episode: Episode, schema: pa.Schema) -> None:
    name = f"{episode.dataset}/{episode.episode_id}"
    cameras = [column.removeprefix(IMAGES) for column in schema.names if column.startswith(IMAGES)]
    if sorted(cameras) != sorted(episode.images):
        raise BadEpisodeError(f"{name} has cameras {sorted(episode.images)}, but its dataset has {sorted(cameras)}")
    for column, values in (("state", episode.states), ("action", episode.actions)):
        size = schema.field(column).type.list_size if column in schema.names else None
        found = None if values is None else values.shape[1]
        if found != size:
            raise BadEpisodeError(f"{name}: its {column} has {found} dimensions, but its dataset's has {size}")


def annotation_row(annotation: Annotation | None) -> dict[str, Any] | None:
    if annotation is None:
        return None
    turns = {
        column: [{"question": turn.question, "answer": turn.answer} for turn in getattr(annotation, kind)]
        for column, kind in TURNS.items()
    }
    return {"caption": annotation.caption, **turns}


def annotation_of(row: Mapping[str, Any] | None) -> Annotation | None:
    """An annotation from its row; one whose parts are all null is none, as `datasets` writes a null so."""
    if row is None or all(value is None for value in row.values()):
        return None
    turns = {kind: tuple(Turn(**turn) for turn in row[column] or ()) for column, kind in TURNS.items()}
    return Annotation(caption=row["caption"], **turns)


def episode_from_table(table: pa.Table, source: str) -> Episode:
    """The episode that one row group holds.

    Raises:
        BadEpisodeError: the rows are not one whole episode in order.
    """
    try:
        first = {
            name: table[name][0].as_py()
            for name in ("episode_id", "dataset", "annotation", "control_rate_hz", "file_path")
        }
        if not np.array_equal(table["frame_index"].to_numpy(), np.arange(table.num_rows)):
            raise ValueError("its rows are not the frames of one episode, in order")
        motions = table["language_motion"].to_pylist()
        cameras = [name for name in table.column_names if name.startswith(IMAGES)]
        return Episode(
            dataset=first["dataset"],
            episode_id=first["episode_id"],
            images={camera.removeprefix(IMAGES): picture_bytes(table[camera]) for camera in cameras},
            actions=vectors_of(table["action"]),
            states=vectors_of(table["state"]) if "state" in table.column_names else None,
            instructions=table["instruction"].to_pylist(),
            control_rate_hz=first["control_rate_hz"],
            language_motions=None if all(motion is None for motion in motions) else motions,
            annotation=annotation_of(first["annotation"]),
            file_path=first["file_path"],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadEpisodeError(f"{source} is no episode: {error}; prepare the dataset again") from error


def vectors_of(column: pa.ChunkedArray) -> np.ndarray:
    """(T, size) float32, a copy that may be written to."""
    array = column.combine_chunks()
    return array.flatten().to_numpy().reshape(len(array), array.type.list_size).copy()


def picture_bytes(column: pa.ChunkedArray) -> list[bytes]:
    return column.combine_chunks().field("bytes").to_pylist()


class EpisodeWriter:
    """Writes one Parquet file, an episode per row group; the same episodes give the same bytes. A context manager."""

    def __init__(self, path: str | Path, schema: pa.Schema):
        self.schema = schema
        self.writer = pq.ParquetWriter(
            path, schema, compression="zstd", write_page_index=True, write_page_checksum=True
        )

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.writer.close()

    def write(self, episode: Episode) -> None:
        """Raises `BadEpisodeError` if the episode's columns are not the file's; nothing of it is written then."""
        table = episode_table(episode, self.schema)
        self.writer.write_table(table, row_group_size=table.num_rows)


def write_episodes(path: str | Path, episodes: Sequence[Episode], description: DatasetDescription) -> None:
    """A Parquet file of a few episodes."""
    with EpisodeWriter(path, episode_schema(description)) as writer:
        for episode in episodes:
            writer.write(episode)
