"""Copies of a saved checkpoint with one thing changed."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from instructvla.evaluation.doctor_lines import Line

Change = Callable[[Path], object]


def broken_copy(source: Path, folder: Path, change: Change) -> Path:
    copied = shutil.copytree(source, folder / "broken")
    change(copied)
    return copied


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def config(**fields) -> Change:
    return lambda folder: edit_json(folder / "config.json", lambda content: content.update(fields))


def processor(**fields) -> Change:
    return lambda folder: edit_json(folder / "processor_config.json", lambda content: content.update(fields))


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def zero(name: str) -> Change:
    return weights(lambda tensors: tensors[name].zero_())


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def findings(lines: Iterable[Line]) -> list[str]:
    """ "check: text" of each finding."""
    return [f"{line.check}: {line.text}" for line in lines if line.kind == "FINDING"]


def texts(lines: Iterable[Line], kind: str) -> str:
    return "\n".join(line.text for line in lines if line.kind == kind)
