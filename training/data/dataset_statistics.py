"""Action and state statistics of a dataset in one pass over it, and the file that keeps them until the data change.

The numbers are defined as those published for Bridge and Fractal by Octo and Open X-Embodiment: standard deviation of
the population, quantiles at 1 % and 99 %, over every step. What differs: q01, q99 and state instead of p01, p99 and
proprio; the mask, which they lack; the state's padding, where a mapping adds one; and quantiles from a sketch instead
of all values in memory, whose error is in the file as `quantile_relative_error`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

import numpy as np
import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.processing.action_normalization import check_statistics, nearest
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episodes import BadEpisodeError, Episode, EpisodeReader
from instructvla.training.data.message_groups import ranges
from instructvla.training.data.ordered_reading import read_in_order
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.published_statistics import comparison, fitting_dims, read_published
from instructvla.training.data.quantile_sketch import MAX_BINS, QuantileSketch
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.vla_it import staged_file

FILE_NAME = "dataset_statistics.json"
ROWS = 1 << 16  # counted at once: the sketches are fastest with many values
MADE_FROM = {
    "source_fingerprint": "the files",
    "mapping": "the mapping",
    "preparation": "what `prepare` was told",
    "prepared_files": "the prepared files",
}
REMEDY = "run `instructvla statistics` on the dataset again"


class DescribedReader(EpisodeReader, Protocol):
    """An `EpisodeReader` that knows what its columns mean and where they come from, as `open_episodes` gives it."""

    description: DatasetDescription
    fingerprint: str
    provenance: Mapping[str, Any]


class ColumnStatistics:
    """Moments, range and quantiles of the columns of one vector, in bounded memory.

    Mean and standard deviation are of float64 sums (Chan's update); for the quantiles see `QuantileSketch`.

    Args:
        size: number of columns.
        max_bins: of each column's sketch.
    """

    def __init__(self, size: int, max_bins: int = MAX_BINS):
        self.count = 0
        self.mean, self.squares = np.zeros(size), np.zeros(size)  # squares: sum of squared distances from the mean
        self.min, self.max = np.full(size, np.inf), np.full(size, -np.inf)
        self.sketches = [QuantileSketch(max_bins) for _ in range(size)]
        self._waiting: list[np.ndarray] = []
        self._rows = 0

    def add(self, values: np.ndarray) -> None:
        """Count rows (n, size) float32.

        Raises:
            ValueError: another number of columns, or a value that is not finite; nothing is counted then.
        """
        check_rows(values, len(self.sketches))
        self._waiting.append(values)
        self._rows += len(values)
        if self._rows >= ROWS:
            self._flush()

    def merge(self, other: Self) -> None:
        """Count what others counted: shards may be counted apart.

        Raises:
            ValueError: columns or sketches of another number.
        """
        if len(other.sketches) != len(self.sketches):
            raise ValueError(f"statistics of {len(self.sketches)} and {len(other.sketches)} columns can't be merged")
        self._flush()
        other._flush()
        for own, sketch in zip(self.sketches, other.sketches, strict=True):
            own.merge(sketch)
        self._merge_moments(other.count, other.mean, other.squares)
        self.min, self.max = np.minimum(self.min, other.min), np.maximum(self.max, other.max)

    def summary(self) -> dict[str, Any]:
        """Lists with a number per column: mean, std (of the population), min, max, q01, q99; and the quantiles' error.

        Raises:
            ValueError: nothing was counted.
        """
        self._flush()
        if self.count == 0:
            raise ValueError("there are no values to describe")
        low, high = (
            np.stack([sketch.quantiles([0.01, 0.99]) for sketch in self.sketches])
            .clip(self.min[:, None], self.max[:, None])
            .T
        )
        columns = {
            "mean": self.mean,
            "std": np.sqrt(self.squares / self.count),
            "min": self.min,
            "max": self.max,
            "q01": low,
            "q99": high,
        }
        error = max(sketch.relative_error for sketch in self.sketches)
        return {name: values.tolist() for name, values in columns.items()} | {"quantile_relative_error": error}

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = np.ascontiguousarray(np.concatenate(self._waiting))  # numpy's sums depend on the order in memory
        self._waiting, self._rows = [], 0
        for sketch, column in zip(self.sketches, rows.T, strict=True):
            sketch.add(column)
        self.min, self.max = np.minimum(self.min, rows.min(axis=0)), np.maximum(self.max, rows.max(axis=0))
        mean = rows.mean(axis=0, dtype=np.float64)
        self._merge_moments(len(rows), mean, np.square(rows - mean).sum(axis=0))

    def _merge_moments(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        if total == 0:
            return
        difference = mean - self.mean
        self.squares = self.squares + squares + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total


class DatasetStatistics:
    """Statistics of one dataset's episodes as they come.

    Args:
        description: of their columns.
    """

    def __init__(self, description: DatasetDescription):
        self.description, self.episodes = description, 0
        self.parts = {"action": ColumnStatistics(len(description.action_names))}
        if description.state_names:
            self.parts["state"] = ColumnStatistics(len(description.state_names))

    def add(self, episode: Episode) -> None:
        """Count an episode.

        Raises:
            BadEpisodeError: a state or an action of another size than described, or with a value that is not finite;
                nothing is counted then.
        """
        given = {"action": episode.actions, "state": episode.states}
        for name, columns in self.parts.items():
            try:
                check_rows(given[name], len(columns.sketches))
            except ValueError as error:
                place = f"{episode.dataset}/{episode.episode_id}"
                raise BadEpisodeError(f"{place}: its {name} can't be used: {error}") from error
        for name, columns in self.parts.items():
            columns.add(given[name])
        self.episodes += 1

    def merge(self, other: Self) -> None:
        """Count what was counted of other episodes of the dataset.

        Raises:
            ValueError: other columns.
        """
        if other.description != self.description:
            raise ValueError(f"statistics of {self.description} and of {other.description} can't be merged")
        for name, columns in self.parts.items():
            columns.merge(other.parts[name])
        self.episodes += other.episodes

    def summary(self) -> dict[str, Any]:
        """What the processor takes as the statistics of one `unnorm_key`; grippers are not masked, so never scaled.

        Raises:
            ValueError: no episode was counted.
        """
        if not self.episodes:
            raise ValueError(f"{self.description.dataset} has no episode that can be read, so it has no statistics.")
        summary = {name: columns.summary() for name, columns in self.parts.items()}
        grippers = self.description.gripper_dims
        summary["action"]["mask"] = [dim not in grippers for dim in range(len(self.description.action_names))]
        return summary | {"num_transitions": self.parts["action"].count, "num_trajectories": self.episodes}


def check_rows(values: np.ndarray | None, size: int) -> None:
    """Raise `ValueError` unless values are finite numbers (n, size)."""
    if values is None or values.ndim != 2 or values.shape[1] != size:
        found = "it is missing" if values is None else f"its shape is {values.shape}"
        raise ValueError(f"{found}, but the dataset's has {size} dimensions")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        step, dim = bad[0].tolist()
        raise ValueError(f"step {step} has {values[step, dim]} in dimension {dim}")


def compute_statistics(
    reader: DescribedReader, *, skip_bad: bool = False, workers: int = 0, show_progress: bool = False
) -> dict[str, Any]:
    """Statistics of a dataset in one pass, which reads no pictures where the reader can leave them out.

    They do not depend on `workers`.

    Args:
        reader: as `open_episodes` gives it.
        skip_bad: go on without episodes that can't be read; "skipped" lists their numbers.
        workers: processes that read episodes; 0 reads in this one.

    Returns:
        `{unnorm_key: {"action": {mean, std, min, max, q01, q99, mask, quantile_relative_error}, "state": …,
        num_transitions, num_trajectories, skipped, fingerprint, made_from}}`.

    Raises:
        BadEpisodeError: the first bad episode, without `skip_bad`.
        ValueError: no episode can be read.
    """
    statistics, skipped = DatasetStatistics(reader.description), []
    quiet = None if show_progress else True  # None shows the bar on a terminal only
    numbers = reader.without_pictures() if hasattr(reader, "without_pictures") else reader
    episodes = tqdm(
        read_in_order(numbers, range(len(reader)), workers), total=len(reader), unit="episode", disable=quiet
    )
    for number, episode in episodes:
        try:
            if isinstance(episode, BadEpisodeError):
                raise episode
            statistics.add(episode)
        except BadEpisodeError as error:
            if not skip_bad:
                raise error.with_skip_bad() from error
            skipped.append(number)
    return {reader.description.dataset: statistics.summary() | {"skipped": skipped} | identity(reader)}


def identity(reader: DescribedReader) -> dict[str, Any]:
    """What tells whether statistics are still those of the data; hashes only."""
    made_from = {name: short_hash(value) for name, value in reader.provenance.items()}
    return {"fingerprint": reader.fingerprint, "made_from": made_from}


def short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_statistics(path: str | Path, statistics: Mapping[str, Any]) -> None:
    """Write a statistics file, or replace the datasets given in an existing one; other datasets in it stay.

    Raises:
        ValueError: an existing file that holds no statistics.
    """
    path = Path(path)
    known = read_statistics(path) if path.exists() else {}
    with staged_file(path) as file:
        file.write(json.dumps(known | dict(statistics), indent=1).encode() + b"\n")


def read_statistics(path: str | Path) -> dict[str, Any]:
    """All datasets of a statistics file.

    Raises:
        ValueError: no such file, or no statistics in it.
    """
    try:
        statistics = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(statistics, dict):
            raise ValueError("it is no object of unnorm keys")
        for key, parts in statistics.items():
            check_statistics({key: parts}, part_size(parts, "action"), part_size(parts, "state"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no dataset statistics ({error}); {REMEDY}.") from error
    return statistics


def part_size(parts: Any, name: str) -> int | None:
    """Number of dimensions of an action or a state; None without one."""
    part = parts.get(name) if isinstance(parts, dict) else None
    quantiles = part.get("q01") if isinstance(part, dict) else None
    return len(quantiles) if isinstance(quantiles, list) else None


def load_statistics(path: str | Path, reader: DescribedReader) -> dict[str, Any]:
    """The statistics of the reader's dataset, as `{unnorm_key: …}`, if they are still those of its data.

    Raises:
        ValueError: no such file or dataset, or the data or their mapping have changed since; the message says which.
    """
    statistics, name = read_statistics(path), reader.description.dataset
    if name not in statistics:
        hint = f"; the nearest of {list(statistics)} is {nearest(name, statistics)!r}" if statistics else ""
        raise ValueError(f"{path} has no statistics of {name!r}{hint}. {REMEDY.capitalize()}.")
    saved, current = statistics[name], identity(reader)
    if saved.get("fingerprint") != current["fingerprint"]:
        raise ValueError(f"{path}: the statistics of {name!r} are stale: {what_changed(saved, current)}; {REMEDY}.")
    return {name: saved}


def what_changed(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    before, now = saved.get("made_from"), current["made_from"]
    if not isinstance(before, Mapping):
        return "they don't say what they were made from"
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    changed = [name for name in changed if name != "prepared_files"] or changed  # they follow from the others
    return f"{' and '.join(MADE_FROM.get(name, name) for name in changed) or 'the format'} changed since"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="Prepared dataset, RLDS or LeRobot folder, or Hub dataset.")],
    output: Annotated[Path, typer.Option(help="Statistics file; other datasets in it stay.")] = Path(FILE_NAME),
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    dataset: Annotated[str | None, typer.Option(help="Key of the statistics; default: the mapping's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without bad episodes.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read; 0 reads in this one.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="JSON file of published statistics, to print beside these.")
    ] = None,
    compare_key: Annotated[str | None, typer.Option(help="Dataset in that file, if it holds several.")] = None,
) -> None:
    """Mean, standard deviation, range and quantiles of a dataset's actions and states, for normalising them."""
    with errors_on_stderr():
        reader = open_episodes(source, mapping, split, dataset, revision)
        check_target(output, source, reader)
        name = reader.description.dataset
        if compare is not None:  # refused before the whole dataset is read
            published = read_published(compare, compare_key, name)
            fitting_dims(published, reader.description)
        statistics = compute_statistics(reader, skip_bad=skip_bad, workers=workers, show_progress=True)
        write_statistics(output, statistics)
    lines = table(statistics, reader.description)
    if compare is not None:
        lines += comparison(statistics[name], published, reader.description)
    typer.echo("\n".join(lines))
    typer.echo(f"written to {output}")


def check_target(output: Path, source: str, reader: DescribedReader) -> None:
    """Refuse what can't be written before the whole dataset is read."""
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give a file, such as {output / FILE_NAME}.")
    if output.exists():
        read_statistics(output)
    is_inside = Path(source).is_dir() and output.resolve().is_relative_to(Path(source).resolve())
    if is_inside and not isinstance(reader, ParquetEpisodes):
        raise ValueError(f"{output} would change the fingerprint of {source}, where it lies; give a file elsewhere.")


def table(statistics: Mapping[str, Any], description: DatasetDescription) -> list[str]:
    """Statistics as lines for a person."""
    lines = []
    names = {
        "action": (description.action_names, description.action_units),
        "state": (description.state_names, description.state_units),
    }
    for key, parts in statistics.items():
        lines.append(f"{key}: {parts['num_trajectories']:,} episodes, {parts['num_transitions']:,} steps")
        if parts["skipped"]:
            lines.append(
                f"  {len(parts['skipped']):,} episodes are skipped, as they can't be read: {ranges(parts['skipped'])}"
            )
        for part in ("action", "state"):
            if part in parts:
                lines += ["", *part_table(part, parts[part], *names[part])]
    return lines


def part_table(part: str, values: Mapping[str, Any], names: Sequence[str], units: Sequence[str]) -> list[str]:
    columns = ("mean", "std", "min", "q01", "q99", "max")
    error = values["quantile_relative_error"]
    exact = "exact" if error == 0 else f"within {100 * error:.2g} %"
    lines = [f"  {part:<24}" + "".join(f"{column:>11}" for column in columns) + f"   (q01, q99 {exact})"]
    for dim, (name, unit) in enumerate(zip(names, units, strict=True)):
        label = f"{name} [{unit}]"
        lines.append(f"  {label:<24}" + "".join(f"{values[column][dim]:>11.4g}" for column in columns))
    return lines


if __name__ == "__main__":
    app()
