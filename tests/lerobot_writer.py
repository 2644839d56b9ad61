"""Writes small LeRobot datasets of each version; every frame shows a number, so a test can tell which frame it is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

BITS, HEIGHT, BIT_WIDTH = 10, 32, 16  # a stripe of 16 pixels for each bit survives any codec
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
CODECS = {
    "h264": ("libx264", {"bf": "2", "b_strategy": "0", "g": "6"}),  # stored in another order than shown
    "av1": ("libsvtav1", {"g": "4", "preset": "9", "crf": "30", "svtav1-params": "lp=1"}),
}
TEMPLATES = {
    "v2": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}


def picture_of(number: int) -> np.ndarray:
    """(height, width, 3) uint8 that shows `number` in binary."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    return np.tile(np.repeat(np.array(bits, np.uint8), BIT_WIDTH)[None, :, None], (HEIGHT, 1, 3))


def number_on(picture: bytes) -> int:
    """The number that an encoded picture shows."""
    middle = np.asarray(Image.open(BytesIO(picture)).convert("L"))[HEIGHT // 2, BIT_WIDTH // 2 :: BIT_WIDTH]
    return sum(1 << bit for bit, value in enumerate(middle) if value > 127)


def write_video(
    path: Path,
    numbers: Sequence[int],
    fps: int,
    codec: str = "h264",
    times: Sequence[Fraction] | None = None,
    time_base: Fraction | None = None,
) -> None:
    """A video whose frames show `numbers`, at `times` in seconds (i / fps if not given)."""
    encoder, options = CODECS[codec]
    time_base = time_base or Fraction(1, 1000 * fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = BITS * BIT_WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        for index, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture_of(number), format="rgb24")
            frame.pts = round((times[index] if times else Fraction(index, fps)) / time_base)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@dataclass(frozen=True)
class LerobotDataset:
    """What `write` puts into a folder; the k-th step of all shows k on the front camera and 1000 − k on the wrist's.

    Args:
        version: "v2.0", "v2.1" or "v3.0".
        lengths: steps of each episode.
        tasks: of each episode.
        pictures: "video" or "image" (PNG in the Parquet files).
        codec: of videos, a key of `CODECS`.
        episodes_per_file: in v3.0.
        row_group_size: rows, of Parquet files in v3.0.
        extra: column of `meta/episodes` → a value for each episode.
    """

    version: str
    lengths: Sequence[int] = (5, 9, 7)
    tasks: Sequence[str] = ("push the cup", "lift the lid", "push the cup")
    pictures: str = "video"
    codec: str = "h264"
    fps: int = 10
    episodes_per_file: int = 2
    row_group_size: int = 4
    extra: dict[str, list[Any]] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        starts = np.cumsum([0, *self.lengths[:-1]])
        tables = [self.rows(index, int(start)) for index, start in enumerate(starts)]
        write_json(folder / "meta/info.json", self.info())
        if self.version == "v3.0":
            self.write_v3(folder, tables)
        else:
            self.write_v2(folder, tables)
        return folder

    def info(self) -> dict[str, Any]:
        data, video = TEMPLATES[self.version[:2]]
        numbers = {"observation.state": ("float32", [3]), "action": ("float32", [2]), "timestamp": ("float32", [1])}
        numbers |= {"grid": ("float32", [2, 3]), "next.done": ("bool", [1])}
        numbers |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), ("int64", [1]))
        cameras = dict.fromkeys((FRONT, WRIST), (self.pictures, [HEIGHT, BITS * BIT_WIDTH, 3]))
        return {
            "codebase_version": self.version,
            "total_episodes": len(self.lengths),
            "chunks_size": 2,
            "fps": self.fps,
            "data_path": data,
            "video_path": video if self.pictures == "video" else None,
            "features": {
                name: {"dtype": dtype, "shape": shape, "names": None}
                for name, (dtype, shape) in (numbers | cameras).items()
            },
        }

    def rows(self, episode: int, start: int) -> pa.Table:
        steps = np.arange(self.lengths[episode])
        floats = pa.float32()
        columns = {
            "observation.state": pa.array([[start + k] * 3 for k in steps], pa.list_(floats, 3)),
            "action": pa.array([[episode, k] for k in steps], pa.list_(floats)),
            "grid": pa.array([[[k, k, k], [0, 1, 2]] for k in steps], pa.list_(pa.list_(floats))),
            "next.done": pa.array(steps == steps[-1]),
            "timestamp": pa.array((steps / self.fps).astype(np.float32)),
            "frame_index": pa.array(steps),
            "episode_index": pa.array(np.full_like(steps, episode)),
            "index": pa.array(start + steps),
            "task_index": pa.array(np.full_like(steps, self.unique_tasks().index(self.tasks[episode]))),
        }
        if self.pictures == "image":
            for camera in (FRONT, WRIST):
                numbers = shown(camera, range(start, start + len(steps)))
                columns[camera] = pa.array([{"bytes": png(number), "path": f"{number}.png"} for number in numbers])
        return pa.table(columns)

    def unique_tasks(self) -> list[str]:
        return list(dict.fromkeys(self.tasks))

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"episode_index": index, "tasks": [self.tasks[index]], "length": length}
            | {name: values[index] for name, values in self.extra.items()}
            for index, length in enumerate(self.lengths)
        ]

    def write_v2(self, folder: Path, tables: list[pa.Table]) -> None:
        tasks = [{"task_index": index, "task": task} for index, task in enumerate(self.unique_tasks())]
        for name, rows in (("episodes", self.listed()), ("tasks", tasks)):
            (folder / f"meta/{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        data, video = TEMPLATES["v2"]
        for index, table in enumerate(tables):
            place = {"episode_chunk": index // 2, "episode_index": index}
            write_table(folder / data.format(**place), table)
            self.write_videos(folder, video, place, table["index"].to_pylist())

    def write_v3(self, folder: Path, tables: list[pa.Table]) -> None:
        tasks = pa.table({"task_index": range(len(self.unique_tasks())), "__index_level_0__": self.unique_tasks()})
        write_table(folder / "meta/tasks.parquet", tasks)
        data, video = TEMPLATES["v3"]
        listed = self.listed()
        for first in range(0, len(tables), self.episodes_per_file):
            place = {"chunk_index": 0, "file_index": first // self.episodes_per_file}
            members = range(first, min(first + self.episodes_per_file, len(tables)))
            table = pa.concat_tables([tables[index] for index in members])
            write_table(folder / data.format(**place), table, self.row_group_size)
            self.write_videos(folder, video, place, table["index"].to_pylist())
            for index in members:
                listed[index] |= self.pointers(place, tables[index], table["index"][0].as_py())
        for number, row in enumerate(listed):  # a file for each, to be put together again
            write_table(folder / f"meta/episodes/chunk-000/file-{number:03d}.parquet", pa.Table.from_pylist([row]))

    def pointers(self, place: dict[str, int], table: pa.Table, first_in_file: int) -> dict[str, Any]:
        start, end = table["index"][0].as_py(), table["index"][-1].as_py() + 1
        row = {"dataset_from_index": start, "dataset_to_index": end, "stats/action/mean": [0.0, 0.0]}
        row |= {f"data/{name}": value for name, value in place.items()}
        for camera in (FRONT, WRIST) if self.pictures == "video" else ():
            row |= {f"videos/{camera}/{name}": value for name, value in place.items()}
            row[f"videos/{camera}/from_timestamp"] = (start - first_in_file) / self.fps
            row[f"videos/{camera}/to_timestamp"] = (end - first_in_file) / self.fps
        return row

    def write_videos(self, folder: Path, template: str, place: dict[str, int], numbers: list[int]) -> None:
        for camera in (FRONT, WRIST) if self.pictures == "video" else ():
            path = folder / template.format(video_key=camera, **place)
            write_video(path, shown(camera, numbers), self.fps, self.codec)


def shown(camera: str, numbers: Sequence[int]) -> list[int]:
    return [number if camera == FRONT else 1000 - number for number in numbers]


def png(number: int) -> bytes:
    file = BytesIO()
    Image.fromarray(picture_of(number)).save(file, "png")
    return file.getvalue()


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_table(path: Path, table: pa.Table, row_group_size: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
