"""`instructvla prepare`: any dataset into sharded Parquet files of episodes, resumable, with a manifest."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episode_parquet import FORMAT, FORMAT_VERSION, MANIFEST, episode_schema
from instructvla.training.data.episode_shards import (
    NumberedEpisode,
    ShardSettings,
    file_sha256,
    final_files,
    sync,
    totals,
    write_shards,
)
from instructvla.training.data.episodes import BadEpisodeError, Episode, EpisodeReader
from instructvla.training.data.field_mapping import MappedEpisodes
from instructvla.training.data.language_motion import MotionSettings, with_language_motion
from instructvla.training.data.message_groups import few, grouped, without_numbers
from instructvla.training.data.ordered_reading import read_in_order
from instructvla.training.data.parquet_reader import FolderStorage, read_manifest
from instructvla.training.data.preparation_journal import FOLDER, Journal, require_same
from instructvla.training.data.preparation_lock import only_one
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.vla_it import VlaItIndex

SHARD_SIZE = 500_000_000  # bytes
VERSIONED = ("av", "datasets", "instructvla", "pillow", "pyarrow")  # whose versions the bytes may depend on
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}

NO_INSTRUCTION = (
    "the mapping has no `instruction:`, so the episodes have none, and training leaves out frames without one; name "
    "the field of texts that holds it"
)

Transform = Callable[[Episode], Episode]


def prepare(
    reader: EpisodeReader,
    output: str | Path,
    *,
    split: str = "train",
    source: str | Path = "",
    transforms: Sequence[Transform] = (),
    settings: Mapping[str, Any] | None = None,
    shard_size: int = SHARD_SIZE,
    skip_bad: bool = False,
    max_episodes: int | None = None,
    workers: int = 0,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Write a split of a dataset as Parquet files; called again after an interruption it goes on where it stopped.

    The files depend only on the reader, the transforms and `shard_size`, not on `workers` nor on interruptions.

    Args:
        reader: with a `description` and its `provenance`, as `open_episodes` gives them.
        output: folder; it may hold other splits of the dataset.
        split: name of the split that is written.
        source: folder or Hub dataset that the data come from, for the manifest.
        transforms: what is done with each episode before it is written.
        settings: JSON values that tell what the transforms do: an interrupted run goes on only with the same ones.
        shard_size: bytes of pictures and numbers after which a new file begins.
        skip_bad: leave out episodes that can't be read, and note each with its reason in the manifest.
        max_episodes: stop after as many good ones.
        workers: processes that read episodes; 0 reads in this one.
        show_progress: on a terminal.

    Returns:
        The split's part of the manifest.

    Raises:
        BadEpisodeError: the first bad episode, without `skip_bad`; finished files stay, for another call.
        ValueError: `output` holds something else, was begun with other settings, or another process writes to it.
    """
    output = Path(output)
    all_settings = {
        **reader.provenance,
        "shard_size": shard_size,
        **({} if max_episodes is None else {"max_episodes": max_episodes}),
        **(settings or {}),
        "versions": {name: installed_version(name) for name in VERSIONED},
    }
    check_output(output)
    with only_one(output):
        manifest = existing_manifest(output, reader.description)
        if split in manifest["splits"]:
            what = f"{output} holds split {split!r}, prepared"
            require_same(manifest["splits"][split]["settings"], all_settings, what)
            Journal(output, split, all_settings).remove()
            return manifest["splits"][split]
        journal = Journal(output, split, all_settings)
        read = finished_episodes(reader, journal.next_episode, transforms, workers)
        shards = ShardSettings(episode_schema(reader.description), shard_size, skip_bad, max_episodes)
        fill(journal, read, len(reader), shards, show_progress)
        entry = {"source": source_name(source), "settings": all_settings, **totals(journal)}
        if not entry["episodes"]:
            journal.remove()
            reasons = "; ".join(episode["reason"] for episode in entry["skipped"][:1])
            raise ValueError(f"{source or 'The source'} has no episode that can be read. {reasons}")
        for episode in entry["skipped"]:
            episode["reason"] = without_folder(episode["reason"], source)
        entry["files"] = final_files(output, journal)
        manifest["splits"] = dict(sorted({**manifest["splits"], split: entry}.items()))
        replace_text(output / MANIFEST, journal.folder / f"{split}-{MANIFEST}", json.dumps(manifest, indent=1) + "\n")
        journal.remove()
    return entry


def fill(
    journal: Journal, episodes: Iterator[NumberedEpisode], count: int, settings: ShardSettings, show_progress: bool
) -> None:
    """Write what is missing of a split's `count` episodes; an error before the first shard leaves nothing behind."""
    quiet = None if show_progress else True  # None shows the bar on a terminal only
    with tqdm(total=count, initial=journal.next_episode, unit="episode", disable=quiet) as bar:
        try:
            write_shards(episodes, journal, count, settings, bar.update)
        except Exception:
            if not journal.shards:
                journal.remove()
            raise


def check_output(output: Path) -> None:
    """Refuse a folder with files that are not ours."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder.")
    if output.is_dir() and any(output.iterdir()) and not any((output / name).exists() for name in (MANIFEST, FOLDER)):
        raise ValueError(f"{output} holds files that are no prepared dataset; give a new folder.")


def existing_manifest(output: Path, description: DatasetDescription) -> dict[str, Any]:
    """The manifest that other splits have left, or an empty one."""
    if not (output / MANIFEST).is_file():
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "description": description.to_dict(),
            "splits": {},
        }
    manifest = read_manifest(FolderStorage(output))
    require_same(manifest["description"], description.to_dict(), f"{output} was prepared")
    return manifest


def finished_episodes(
    reader: EpisodeReader, start: int, transforms: Sequence[Transform], workers: int
) -> Iterator[NumberedEpisode]:
    """Episodes from `start` on in order, transformed and checked; in place of a bad one, what is wrong with it."""
    for number, episode in read_in_order(reader, range(start, len(reader)), workers):
        try:
            if isinstance(episode, Exception):
                raise episode
            for transform in transforms:
                episode = transform(episode)
            yield number, episode
        except BadEpisodeError as error:
            yield number, error


def replace_text(path: Path, staged: Path, text: str) -> None:
    """Write a file all at once: readers see the old one or the new one."""
    staged.write_text(text, encoding="utf-8")
    sync(staged)
    os.replace(staged, path)


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def motion_transform(description: DatasetDescription) -> Transform:
    """What computes language motion as the mapping says, for episodes that have none."""
    if description.motion is None:
        raise ValueError(f"--motion: the mapping of {description.dataset} has no `motion` section, which says how.")
    motion = MotionSettings.from_dict(description.motion)
    return partial(with_language_motion, settings=motion)


def text_transforms(
    description: DatasetDescription, annotations: VlaItIndex | None, motion: bool
) -> tuple[Transform, ...]:
    """What joins annotations and then computes the motions that are missing, whichever is asked for."""
    transforms: list[Transform] = []
    if annotations is not None:
        place = {"first_step": description.first_step, "dropped_steps": description.dropped_steps}
        transforms.append(partial(annotations.join, **place))
    if motion:
        transforms.append(motion_transform(description))
    return tuple(transforms)


def parse_size(text: str) -> int:
    """Bytes of "500MB"; K, M and G are powers of 1000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip(), re.IGNORECASE)
    if match is None or not (size := int(float(match[1]) * UNITS[match[2].upper()])):
        raise ValueError(f"--shard-size {text} is no size, such as 500MB or 1GB.")
    return size


def source_name(source: str | Path) -> str:
    """A source without the folders of this machine: a Hub dataset's id, or a folder's name (with its version)."""
    if not source or not Path(source).is_dir():
        return str(source)
    folder = Path(source).resolve()
    return f"{folder.parent.name}/{folder.name}" if re.fullmatch(r"[\d.]+", folder.name) else folder.name


def without_folder(text: str, source: str | Path) -> str:
    """A message about a source without the folders of this machine above it."""
    folder = Path(source)
    is_named = folder.is_dir() and folder != Path(".")
    return text.replace(str(folder), source_name(source)) if is_named else text


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="RLDS or LeRobot folder, Hub dataset, or a prepared one.")],
    output: Annotated[Path, typer.Option(help="Folder of the prepared dataset.")],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the source, and of what is written.")] = "train",
    dataset: Annotated[str | None, typer.Option(help="Key of its statistics; default: the mapping's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    vla_it: Annotated[list[Path] | None, typer.Option(help="VLA-IT's annotation JSON, to join; repeatable.")] = None,
    motion: Annotated[bool, typer.Option("--motion", help="Compute language motion where it is missing.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out bad episodes; the manifest lists them.")
    ] = False,
    max_episodes: Annotated[int | None, typer.Option(min=1, help="Stop after as many that can be read.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in this one.")] = 0,
    shard_size: Annotated[str, typer.Option(help="Of the Parquet files.")] = "500MB",
) -> None:
    """Write a dataset as sharded Parquet files that training streams; run again, it goes on where it stopped."""
    with errors_on_stderr():
        size, reader = parse_size(shard_size), open_episodes(source, mapping, split, dataset, revision)
        annotations = VlaItIndex.read(vla_it) if vla_it else None
        transforms = text_transforms(reader.description, annotations, motion)
        if isinstance(reader, MappedEpisodes) and reader.mapping.instruction is None:
            typer.echo(f"warning: {NO_INSTRUCTION}", err=True)
        entry = prepare(
            reader,
            output,
            split=split,
            source=source,
            transforms=transforms,
            settings={"vla_it": sorted(file_sha256(path) for path in vla_it or []), "motion": motion},
            shard_size=size,
            skip_bad=skip_bad,
            max_episodes=max_episodes,
            workers=workers,
            show_progress=True,
        )
    typer.echo(summary(entry, output))
    if annotations is not None:
        typer.echo(f"In this run, {annotations.report()}")


def summary(entry: Mapping[str, Any], output: Path) -> str:
    """A split of the manifest in a few lines for a person."""
    lines = [
        f"{entry['episodes']:,} episodes, {entry['frames']:,} frames in {len(entry['files'])} files, "
        f"{sum(file['bytes'] for file in entry['files']) / 1e6:,.1f} MB",
        f"  with an instruction  {entry['instructed']:,}",
        f"  with language motion {entry['with_motion']:,}",
        f"  annotated (VLA-IT)   {entry['annotated']:,}",
        *instruction_warning(entry),
        *skipped_lines(entry["skipped"]),
    ]
    return "\n".join([*lines, f"written to {output}"])


def instruction_warning(entry: Mapping[str, Any]) -> Iterator[str]:
    """What to do where not one episode has an instruction."""
    if entry["instructed"]:
        return
    field = entry["settings"].get("mapping", {}).get("instruction")
    why = f"all texts of `instruction: {field}` are empty" if field else "no `instruction:` is mapped"
    yield f"  warning: {why}; training leaves out frames without an instruction"


def skipped_lines(skipped: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Episodes that were left out for the same reason together; the manifest lists each."""
    for group in grouped(skipped, key=lambda episode: without_numbers(episode["reason"])):
        numbers = [episode["episode"] for episode in group]
        yield f"  skipped {few(numbers)}: {'such as ' if len(group) > 1 else ''}{group[0]['reason']}"


if __name__ == "__main__":
    app()
