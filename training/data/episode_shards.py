"""The shards of a split that is being prepared: episodes in order until a file is full, noted once it is whole."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from instructvla.training.data.encoded_pictures import is_picture, open_picture
from instructvla.training.data.episode_parquet import EpisodeWriter
from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.preparation_journal import Journal

COUNTS = ("episodes", "frames", "instructed", "annotated", "with_motion")

NumberedEpisode = tuple[int, Episode | BadEpisodeError]  # in place of a bad episode, what is wrong with it


@dataclass(frozen=True)
class ShardSettings:
    """How a split becomes files.

    Args:
        schema: of the files.
        shard_size: bytes of pictures and numbers after which a new file begins.
        skip_bad: leave out bad episodes instead of stopping at the first.
        max_episodes: stop after as many good ones; None writes all.
    """

    schema: pa.Schema
    shard_size: int
    skip_bad: bool = False
    max_episodes: int | None = None


def write_shards(
    episodes: Iterator[NumberedEpisode],
    journal: Journal,
    count: int,
    settings: ShardSettings,
    advance: Callable[[int], Any],
) -> None:
    """Shard after shard until `count` episodes are read; each is noted in the journal once it is on the disk."""
    most = count if settings.max_episodes is None else settings.max_episodes
    while journal.next_episode < count and (room := most - sum(shard["episodes"] for shard in journal.shards)) > 0:
        place = journal.staged(len(journal.files))
        unfinished = place.with_suffix(".unfinished")
        with EpisodeWriter(unfinished, settings.schema) as writer:
            shard = fill_shard(writer, episodes, journal.next_episode, room, settings, advance)
        if shard["episodes"]:
            sync(unfinished)
            os.replace(unfinished, place)
            shard |= {"bytes": place.stat().st_size, "sha256": file_sha256(place)}
        else:
            unfinished.unlink()
        journal.add(shard)


def fill_shard(
    writer: EpisodeWriter,
    episodes: Iterator[NumberedEpisode],
    first: int,
    room: int,
    settings: ShardSettings,
    advance: Callable[[int], Any],
) -> dict[str, Any]:
    """Write at most `room` episodes until the shard is full or there are no more; what it holds, for the journal."""
    shard: dict[str, Any] = {name: 0 for name in COUNTS}
    shard |= {"next_episode": first, "skipped": [], "camera_sizes": {}, "control_rates_hz": []}
    filled = 0
    for number, episode in episodes:
        try:
            if isinstance(episode, Exception):
                raise episode
            check_pictures(episode)
            sizes = camera_sizes(episode)
            writer.write(episode)
        except BadEpisodeError as error:
            if not settings.skip_bad:
                raise error.with_skip_bad() from error
            shard["skipped"].append({"episode": number, "reason": str(error)})
        else:
            count_episode(shard, episode, sizes)
            filled += episode_bytes(episode)
        shard["next_episode"] = number + 1
        advance(1)
        if filled >= settings.shard_size or shard["episodes"] == room:
            break
    return shard


def count_episode(shard: dict[str, Any], episode: Episode, sizes: Mapping[str, str]) -> None:
    shard["episodes"] += 1
    shard["frames"] += len(episode)
    shard["instructed"] += any(episode.instructions)
    shard["annotated"] += episode.annotation is not None
    shard["with_motion"] += any(episode.language_motions or ())
    for camera, size in sizes.items():
        shard["camera_sizes"][camera] = sorted({*shard["camera_sizes"].get(camera, ()), size})
    shard["control_rates_hz"] = sorted({*shard["control_rates_hz"], episode.control_rate_hz})


def camera_sizes(episode: Episode) -> dict[str, str]:
    """Camera → "WIDTHxHEIGHT" of its first picture."""
    sizes = {}
    for camera, pictures in episode.images.items():
        try:
            picture = open_picture(pictures[0], f"the first picture of {camera}")
        except ValueError as error:
            raise BadEpisodeError(f"{episode.dataset}/{episode.episode_id}: {error}; record it again") from error
        sizes[camera] = f"{picture.width}x{picture.height}"
    return sizes


def episode_bytes(episode: Episode) -> int:
    arrays = [array for array in (episode.actions, episode.states) if array is not None]
    return sum(map(len, (p for pictures in episode.images.values() for p in pictures))) + sum(a.nbytes for a in arrays)


def totals(journal: Journal) -> dict[str, Any]:
    """Counts of the whole split."""
    cameras = sorted({camera for shard in journal.files for camera in shard["camera_sizes"]})
    return {
        **{name: sum(shard[name] for shard in journal.shards) for name in COUNTS},
        "control_rates_hz": sorted({rate for shard in journal.files for rate in shard["control_rates_hz"]}),
        "camera_sizes": {
            camera: sorted({size for shard in journal.files for size in shard["camera_sizes"].get(camera, ())})
            for camera in cameras
        },
        "skipped": [episode for shard in journal.shards for episode in shard["skipped"]],
    }


def final_files(output: Path, journal: Journal) -> list[dict[str, Any]]:
    """Give the shards their final names, which tell how many there are; those that have theirs already keep it."""
    (output / "data").mkdir(exist_ok=True)
    files = []
    for number, shard in enumerate(journal.files):
        path = f"data/{journal.split}-{number:05d}-of-{len(journal.files):05d}.parquet"
        if journal.staged(number).is_file():
            os.replace(journal.staged(number), output / path)
        elif not (output / path).is_file():
            raise ValueError(f"{journal.staged(number)} is gone; remove {output} and prepare again.")
        files.append({"path": path, **{name: shard[name] for name in ("episodes", "frames", "bytes", "sha256")}})
    return files


def check_pictures(episode: Episode) -> None:
    """Raise `BadEpisodeError` for the first picture that is neither JPEG nor PNG."""
    for camera, pictures in episode.images.items():
        for step, picture in enumerate(pictures):
            if not is_picture(picture):
                raise BadEpisodeError(
                    f"{episode.dataset}/{episode.episode_id}: camera {camera} of step {step} is neither JPEG nor PNG "
                    f"({len(picture)} bytes)"
                )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
