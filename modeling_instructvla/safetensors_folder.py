"""The tensors of a folder with safetensors files, read when they are used."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from instructvla.plain_files import listed, read_json

SINGLE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_PATTERNS = ("*.safetensors", INDEX)
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


class SafetensorsFolder:
    """Shapes and dtypes of all tensors in model.safetensors, in the shards that its index names, or else in the
    folder's only such file.

    Raises:
        ValueError: no such file, several without an index, a shard that is missing, or a file that can't be read.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        for path in weight_files(self.folder):
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 (no mapping)
                        tensor = file.get_tensor(name)  # mapped, not read; a slice has no torch dtype
                        self.files[name], self.dtypes[name] = path, tensor.dtype
                        self.shapes[name] = tuple(tensor.shape)
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{path} is truncated or no safetensors file; copy it again. ({error})") from error

    def load(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Some tensors, mapped from their files anew, so that memory is free once they are let go."""
        tensors: dict[str, torch.Tensor] = {}
        names = list(names)
        for path in sorted({self.files[name] for name in names}):
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(name) for name in names if self.files[name] == path}
        return tensors


def weight_files(folder: Path) -> list[Path]:
    weight_map, single = read_weight_map(folder), folder / SINGLE_FILE
    if weight_map is not None:
        files = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise ValueError(f"{str(folder)!r} lacks {listed(missing)}, which its {INDEX} names; copy them there.")
        return files
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        raise ValueError(f"{str(folder)!r} has {len(files)} safetensors files but no {INDEX}; copy it there.")
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
        hint = f" Convert {pickled[0]} to safetensors first: unpickling it could run code." if pickled else ""
        raise ValueError(f"{str(folder)!r} has no safetensors weights.{hint}")
    return files


def read_weight_map(folder: Path) -> dict[str, str] | None:
    """Tensor name → file, of the folder's index; None without an index.

    Raises:
        ValueError: an index that can't be read, or without a usable weight_map.
    """
    if not (folder / INDEX).is_file():
        return None
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ValueError(f"{str(folder / INDEX)!r} has no weight_map of tensor names to files; copy it again.")
    return weight_map
