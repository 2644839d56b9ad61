"""Recordings in memory that look like Bridge's, for tests of what is done with recordings."""

import io
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image

from instructvla.training.data.episodes import BadEpisodeError, RawEpisode
from instructvla.training.data.field_mapping import MappedEpisodes, read_mapping

SHARED = Path(__file__).parents[2] / "shared" / "data"


def jpeg(seed: int, size: int = 16) -> bytes:
    """A small picture of noise, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


def bridge_recording(number: int, steps: int = 6, **changes) -> RawEpisode:
    """A recording with Bridge's fields; `changes` replace fields of the steps ("/" is written "__")."""
    random = np.random.default_rng(number)
    fields = {
        "observation/image_0": [jpeg(1000 * number + step) for step in range(steps)],
        "observation/state": random.normal(0, 0.1, (steps, 7)).astype(np.float32),
        "action": np.column_stack([np.zeros((steps, 6)), np.arange(steps) >= steps // 2]).astype(np.float32),
        "language_instruction": [f"put object {number} on the plate"] * steps,
    }
    fields |= {name.replace("__", "/"): values for name, values in changes.items()}
    metadata = {"episode_metadata/file_path": f"/robot/{number}/out.npy", "episode_metadata/episode_id": np.int32(3)}
    return RawEpisode({k: v for k, v in fields.items() if v is not None}, metadata, f"memory: record {number}")


class BridgeRecordings:
    """A `RawReader` in memory; the numbers in `bad` can't be read, and each reading takes `seconds`."""

    def __init__(self, count: int, bad: Collection[int] = (), seconds: float = 0):
        self.count, self.bad, self.seconds = count, frozenset(bad), seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> RawEpisode:
        if not 0 <= index < self.count:
            raise IndexError(index)
        time.sleep(self.seconds)
        if index in self.bad:
            raise BadEpisodeError(f"memory: record {index} is truncated; copy the file again")
        return bridge_recording(index)


def bridge_episodes(count: int, bad: Collection[int] = (), seconds: float = 0) -> MappedEpisodes:
    """The same as `Episode`s: 4 steps each, as the first and the last of 6 are dropped."""
    return MappedEpisodes(BridgeRecordings(count, bad, seconds), read_mapping("bridge"))
