"""`instructvla validate`: what is wrong with a dataset, a line per problem with its episodes, and a table."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.training.data.dataset_checks import (
    Problem,
    dataset_checks,
    of_episode,
    of_unreadable,
    problem_lines,
)
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import DescribedReader
from instructvla.training.data.episode_checks import check_episode, gripper_aperture
from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.ordered_reading import read_in_order
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.vla_it import VlaItIndex, staged_file

CHECKS = {
    "unreadable": "episodes that can't be read",
    "checksum": "prepared files whose content changed",
    "duplicate id": "two episodes of one id and file path",
    "length": "too few steps",
    "sizes": "cameras or dimensions that are not the dataset's",
    "finite": "NaN or infinity",
    "constant": "dimensions that never change",
    "frozen": "episodes in which nothing changes",
    "jump": "state changes 20 times the usual",
    "opposed action": "actions that move against the state",
    "gripper": "gripper actions beyond 0 to 1, or of the wrong sign",
    "images": "pictures that can't be decoded, or change size",
    "blank frames": "black or blank frames among those looked at",
    "instruction": "steps without instruction",
    "annotation": "empty texts, annotations without episode or the reverse",
}
SHORTEST = 4  # steps
FRAMES = 3  # of each camera and episode: first, middle, last


@dataclass(frozen=True)
class ValidationReport:
    """What was looked at and found.

    Args:
        dataset: its name.
        episodes: how many were asked for, readable or not.
        frames: steps of the readable ones.
        problems: in the order of episodes; those only known at the end come last.
        unchecked: check → why it, or a part of it, could not be done.
    """

    dataset: str
    episodes: int
    frames: int
    problems: list[Problem] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Problems of every check, found or not."""
        return {check: sum(problem.check == check for problem in self.problems) for check in CHECKS}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, every problem by itself."""
        return {**asdict(self), "counts": self.counts()}

    def table(self) -> list[str]:
        """Lines of a table: problems and episodes concerned for each check."""
        lines = [f"{self.dataset}: {self.episodes:,} episodes, {self.frames:,} frames"]
        for check, count in self.counts().items():
            concerned = {problem.number for problem in self.problems if problem.check == check} - {None}
            found = f"{count:>7,}" if count else f"{'–':>7}"
            where = f" in {len(concerned):,} episodes" if concerned else ""
            note = f"  [not checked: {self.unchecked[check]}]" if check in self.unchecked else ""
            lines.append(f"{found}  {check:<15} {CHECKS[check]}{where}{note}")
        return lines


def validate(
    reader: DescribedReader,
    *,
    max_episodes: int | None = None,
    annotations: VlaItIndex | None = None,
    shortest: int = SHORTEST,
    frames: int = FRAMES,
    workers: int = 0,
    show_progress: bool = False,
) -> ValidationReport:
    """Read a dataset and report what is wrong with it; an episode that can't be read is a problem among others.

    Args:
        reader: as `open_episodes` gives it.
        max_episodes: look at the first ones only.
        annotations: VLA-IT's, each of which must meet an episode and the reverse.
        shortest: steps that an episode must have.
        frames: how many frames of each camera and episode are decoded.
        workers: processes that read; 0 reads in this one.
        show_progress: on a terminal.
    """
    description = reader.description
    count = len(reader) if max_episodes is None else min(max_episodes, len(reader))
    collectors = dataset_checks(description)
    problems, steps = list(changed_files(reader, count)), 0
    quiet = None if show_progress else True  # None shows the bar on a terminal only
    bar = tqdm(read_in_order(reader, range(count), workers), total=count, unit="episode", disable=quiet)
    for number, episode in bar:
        bar.set_postfix(problems=len(problems), refresh=False)
        if isinstance(episode, BadEpisodeError):
            problems.append(of_unreadable(episode, number))
            continue
        steps += len(episode)
        for collector in collectors:
            collector.add(number, episode)
        for finding in check_episode(episode, description, shortest=shortest, frames=frames):
            problems.append(of_episode(finding, number, episode.episode_id))
        if annotations is not None:
            problems += unmatched(episode, number, annotations, description)
    problems += chain.from_iterable(collector.problems() for collector in collectors)
    if annotations is not None:
        problems += left_over(annotations, is_whole=count == len(reader))
    reasons = unchecked(description) | unchecked_files(reader)
    return ValidationReport(description.dataset, count, steps, problems, reasons)


def changed_files(reader: DescribedReader, count: int) -> Iterator[Problem]:
    """Files of prepared episodes that differ from what was prepared, though the episodes may still be read."""
    if not unchecked_files(reader):
        yield from (Problem("checksum", message) for message in reader.changed_files(count))


def unchecked_files(reader: DescribedReader) -> dict[str, str]:
    if not isinstance(reader, ParquetEpisodes):
        return {"checksum": "only prepared datasets have checksums"}
    return {} if reader.has_checksums else {"checksum": "its manifest has no checksums; prepare it again"}


def unmatched(
    episode: Episode, number: int, annotations: VlaItIndex, description: DatasetDescription
) -> Iterator[Problem]:
    """An episode without a record, or with a record that is malformed or of another number of steps."""
    key = (episode.file_path, episode.episode_id)
    try:
        annotations.join(episode, description.first_step, description.dropped_steps)
    except BadEpisodeError as error:
        yield Problem("annotation", str(error), episode.episode_id, number, cause="malformed")
    if key in annotations.not_found:
        message = "no annotation is of this episode"
        yield Problem("annotation", f"{message} ({key[0] or 'no file path'})", episode.episode_id, number, message)
    if key in annotations.misfits:
        message = f"its record does not fit ({annotations.misfits[key]}); it is joined as far as it goes"
        yield Problem("annotation", message, episode.episode_id, number)


def left_over(annotations: VlaItIndex, is_whole: bool) -> Iterator[Problem]:
    """What is known of annotations once all episodes have passed; of a part of them, not which are left over."""
    report = annotations.report()
    if report.unused and is_whole:
        yield Problem(
            "annotation", f"{report.unused:,} of {len(annotations):,} annotated episodes are not in the dataset"
        )
    if report.single:
        what = f"{report.single:,} records hold a single motion, of the first step; the other steps have none"
        yield Problem("annotation", what)


def unchecked(description: DatasetDescription) -> dict[str, str]:
    """Check → why a part of it can't be done with such columns."""
    reasons = {}
    if not description.state_names:
        reasons |= dict.fromkeys(("jump", "opposed action"), "there is no state")
    elif not set(description.action_names) & set(description.state_names):
        reasons["opposed action"] = "no action dimension is named as one of the state"
    if not description.gripper_dims:
        reasons["gripper"] = "no action dimension is a gripper"
    elif gripper_aperture(description) is None:
        reasons["gripper"] = "the sign, as no state dimension tells the gripper's opening"
    return reasons


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="Prepared dataset, RLDS or LeRobot folder, or Hub dataset.")],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    max_episodes: Annotated[int | None, typer.Option(min=1, help="Look at the first ones only.")] = None,
    vla_it: Annotated[list[Path] | None, typer.Option(help="VLA-IT's annotation JSON, to match; repeatable.")] = None,
    min_steps: Annotated[int, typer.Option(min=1, help="Fewer make an episode too short.")] = SHORTEST,
    frames: Annotated[int, typer.Option(min=0, help="Frames decoded of each camera and episode.")] = FRAMES,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in this one.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="The report as a JSON file.")] = None,
) -> None:
    """List what is wrong with a dataset. Exit code: 0 nothing, 1 problems, 2 it can't be opened."""
    with errors_on_stderr():
        if json_file is not None and json_file.is_dir():
            raise ValueError(f"--json {json_file} is a folder; give a file.")
        report = validate(
            open_episodes(source, mapping, split, revision=revision),
            max_episodes=max_episodes,
            annotations=VlaItIndex.read(vla_it) if vla_it else None,
            shortest=min_steps,
            frames=frames,
            workers=workers,
            show_progress=True,
        )
        if json_file is not None:
            with staged_file(json_file) as file:
                file.write(json.dumps(report.to_dict(), indent=1, ensure_ascii=False).encode() + b"\n")
    typer.echo("\n".join([*problem_lines(report.problems), *([""] if report.problems else []), *report.table()]))
    raise typer.Exit(1 if report.problems else 0)


if __name__ == "__main__":
    app()
