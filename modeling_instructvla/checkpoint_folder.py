"""What counts as an InstructVLA checkpoint, for the commands that take one."""

from collections.abc import Sequence
from pathlib import Path

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.hub_source import local_folder
from instructvla.plain_files import read_json


def checkpoint_folder(source: str | Path, patterns: Sequence[str] = ("config.json",)) -> Path:
    """The folder of an InstructVLA checkpoint, or of the files matching `patterns` of one on the Hub, downloaded.

    Raises:
        ValueError: no such folder or repository, no config.json, or one of another model.
    """
    folder = local_folder(source, patterns)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{source} is no checkpoint: it has no config.json. Give a folder that save_pretrained wrote.")
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type != InstructVLAConfig.model_type:
        raise ValueError(f"{source} holds a model of type {model_type!r}; give an InstructVLA checkpoint.")
    return folder
