"""The files of a published training run: its settings, statistics and checkpoint, read without running code."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from instructvla.hub_source import local_folder, source_files

SETTINGS, STATISTICS = "config.json", "dataset_statistics.json"
MODULES = ("vision_model", "mlp1", "language_model", "action_model")
OPTIMIZER_RULE = "optimizer state, which only training needs"
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
    if path.is_file():
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


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} can't be read as JSON ({error}); copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, not {type(content).__name__}.")
    return content


def read_statistics(path: str | Path) -> dict[str, Any]:
    """A published dataset_statistics.json as our processor takes it: the state is called "proprio" there.

    Returns:
        `{unnorm_key: {"action": {...}, "state": {...}, ...}}`, not checked further.

    Raises:
        ValueError: a file that is missing, empty or no JSON object of objects.
    """
    statistics = read_json(Path(path))
    if not statistics or not all(isinstance(parts, dict) for parts in statistics.values()):
        raise ValueError(f"{str(path)!r} must hold {{unnorm_key: {{'action': {{'q01': [...], 'q99': [...]}}}}}}.")
    return {
        key: {("state" if part == "proprio" else part): values for part, values in parts.items()}
        for key, parts in statistics.items()
    }


def open_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """All tensors of a published checkpoint as `module.tensor`, mapped from the file and read when they are used.

    Returns:
        The tensors, and {rule: names} of what is no weight.

    Raises:
        ValueError: a file that is no checkpoint, holds other objects than tensors, or lacks a module.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{str(path)!r} holds more than tensors and is not read, as that could run code.") from error
    except (EOFError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{str(path)!r} is no checkpoint that torch can map: {reason}") from error
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping):
        raise ValueError(f"{str(path)!r} is no InstructVLA checkpoint: it has no dictionary 'model' of {MODULES}.")
    others = [name for name in content if name not in ("model", "optimizer")]
    others += [f"model.{name}" for name in model if name not in MODULES]
    if others:
        raise ValueError(f"{str(path)!r} holds parts that InstructVLA doesn't know: {', '.join(map(str, others))}.")
    absent = [name for name in MODULES if not isinstance(model.get(name), Mapping)]
    if absent:
        raise ValueError(f"{str(path)!r} lacks {', '.join(absent)}; it is not a whole InstructVLA checkpoint.")
    tensors = {f"{module}.{name}": tensor for module in MODULES for name, tensor in model[module].items()}
    strange = [name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    if strange:
        raise ValueError(f"{str(path)!r} holds {strange[0]}, which is no tensor.")
    return tensors, ({OPTIMIZER_RULE: ["optimizer"]} if "optimizer" in content else {})
