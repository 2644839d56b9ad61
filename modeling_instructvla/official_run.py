"""The files of a published training run: its settings, its statistics and where its checkpoint is."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from instructvla.hub_source import local_folder, source_files
from instructvla.plain_files import read_json

SETTINGS, STATISTICS = "config.json", "dataset_statistics.json"
CONTROL_RATES_HZ = {"bridge": 5.0, "fractal": 3.0, "libero": 20.0}  # of the recordings, by the start of their name


@dataclass
class OfficialRun:
    """A published run on disk.

    Args:
        checkpoint: the `.pt` file.
        settings: the run's config.json; empty if the file lies alone.
        statistics: as our processor takes them.
    """

    checkpoint: Path
    settings: dict[str, Any]
    statistics: dict[str, Any]

    def control_rates(self) -> dict[str, float]:
        """{unnorm_key: control rate in Hz} of the datasets whose rate is known."""
        rates = CONTROL_RATES_HZ.items()
        return {key: rate for key in self.statistics for start, rate in rates if key.startswith(start)}


def find_run(
    source: str | Path, statistics: Path | None = None, checkpoint: str | None = None, revision: str | None = None
) -> OfficialRun:
    """Find a run's files in its folder, around one of its `.pt` files, or in a Hub repository.

    Args:
        source: run folder, `.pt` file or Hub repository.
        statistics: a dataset_statistics.json to use instead of the run's.
        checkpoint: which `.pt` of several, relative to the run.
        revision: of the Hub repository.

    Raises:
        ValueError: no checkpoint, several, or none with the name given; missing or unreadable statistics or settings.
    """
    path = Path(source)
    if revision is not None and path.exists():
        raise ValueError(
            f"--revision {revision} is of a Hub repository, but {str(source)!r} is on this disk; leave it out."
        )
    if path.is_file():
        if checkpoint is not None:
            raise ValueError(f"--checkpoint {checkpoint} chooses a file of a run, but {str(source)!r} is one already.")
        if path.suffix != ".pt":
            raise ValueError(f"{str(source)!r} is no .pt file; give a run folder, its .pt file or a Hub repository.")
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    else:
        name = choose_checkpoint(source, source_files(source, revision), checkpoint)
        folder = local_folder(source, [name, SETTINGS, STATISTICS], revision)
        path = folder / name
    if statistics is None and not (folder / STATISTICS).is_file():
        raise ValueError(
            f"{str(source)!r} has no {STATISTICS}, without which no action can be scaled; give --statistics FILE."
        )
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    return OfficialRun(path, settings, read_statistics(statistics or folder / STATISTICS))


def choose_checkpoint(source: str | Path, files: list[str], wanted: str | None) -> str:
    """The one `.pt` file of a run, or the one wanted, by its path in the run."""
    found = [name for name in files if PurePosixPath(name).suffix == ".pt"]
    if wanted is not None and wanted in found:
        return wanted
    listed = ", ".join(found) or "none"
    if wanted is not None:
        raise ValueError(f"--checkpoint {wanted} is not a file of {str(source)!r}; its .pt files: {listed}.")
    if len(found) != 1:
        remedy = "choose one with --checkpoint" if found else "give a published run or its .pt file"
        raise ValueError(f"{str(source)!r} must have one .pt file, but has {len(found)} ({listed}); {remedy}.")
    return found[0]


def read_statistics(path: str | Path) -> dict[str, Any]:
    """A published dataset_statistics.json as our processor takes it: the state is called "proprio" there.

    Returns:
        `{unnorm_key: {"action": {...}, "state": {...}, ...}}`, not checked further.

    Raises:
        ValueError: a file that is missing, empty or no JSON object of objects.
    """
    statistics = read_json(path)
    if not statistics or not all(isinstance(parts, dict) for parts in statistics.values()):
        raise ValueError(f"{str(path)!r} must hold {{unnorm_key: {{'action': {{'q01': [...], 'q99': [...]}}}}}}.")
    return {
        key: {("state" if part == "proprio" else part): values for part, values in parts.items()}
        for key, parts in statistics.items()
    }
