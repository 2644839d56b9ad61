"""The tensors of a published checkpoint, with the LoRA that the authors' unload_lora.py may have taken out of it."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from instructvla.peft_files import read_peft_adapter

MODULES = ("vision_model", "mlp1", "language_model", "action_model")
OPTIMIZER_RULE = "optimizer state, which only training needs"
REPEATED_RULE = "embeddings that the adapter folder repeats, bit for bit"


class OfficialTensors:
    """Names, shapes and dtypes of all tensors; `open` maps the file anew, so that memory is free once it is closed.

    Args:
        checkpoint: the `.pt` file.
        adapter: PEFT folder beside an unloaded checkpoint.
    """

    def __init__(self, checkpoint: Path, adapter: Path | None = None):
        self.checkpoint = checkpoint
        self.adapter = None
        self.adapter_tensors: dict[str, torch.Tensor] = {}
        self.file_names: dict[str, str] = {}  # of the adapter's tensors, where the names differ
        tensors, self.dropped = open_checkpoint(checkpoint)
        if adapter is not None:
            self.take_adapter(tensors, adapter)
            tensors |= self.adapter_tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in tensors.items()}

    def open(self) -> dict[str, torch.Tensor]:
        """All tensors, mapped from the file."""
        return open_checkpoint(self.checkpoint)[0] | self.adapter_tensors

    def take_adapter(self, tensors: dict[str, torch.Tensor], folder: Path) -> None:
        """Put the matrices of a PEFT folder beside the tensors; embeddings that it repeats must be the same."""
        if any(".lora_A." in name for name in tensors):
            raise ValueError(f"{str(self.checkpoint)!r} has its LoRA tensors inside; leave --adapter out.")
        self.adapter = read_peft_adapter(folder)
        for name, matrix in self.adapter.matrices.items():
            official = f"language_model.base_model.model.model.{name}.default.weight"
            self.adapter_tensors[official] = matrix
            self.file_names[official] = f"{folder.name}: base_model.model.model.{name}.weight"
        for name, rows in self.adapter.embeddings.items():
            own = f"language_model.{'' if name == 'lm_head' else 'model.'}{name}.weight"
            if own not in tensors or not torch.equal(tensors[own], rows.to(tensors[own].dtype)):
                raise ValueError(f"{name} in {str(folder)!r} differs from the checkpoint's; they are not of one run.")
            self.dropped.setdefault(REPEATED_RULE, []).append(f"{folder.name}: {name}")


def open_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """All tensors of a published checkpoint as `module.tensor`, mapped from the file and read when they are used.

    Returns:
        The tensors, and {rule: names} of what is no weight.

    Raises:
        ValueError: a file that is no checkpoint, holds other objects than tensors, or lacks a module.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{str(path)!r} is no checkpoint that torch can map: it is no zip file, so truncated, of another kind, or "
            "in torch's format from before 1.6. Copy it again, or load and save it with torch."
        )
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
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            raise ValueError(f"{str(path)!r} holds {name}, which is no dense tensor.")
    return tensors, ({OPTIMIZER_RULE: ["optimizer"]} if "optimizer" in content else {})
