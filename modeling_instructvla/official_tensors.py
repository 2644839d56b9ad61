"""The tensors of a published checkpoint, with the LoRA that the authors' unload_lora.py may have taken out of it."""

from pathlib import Path

import torch

from instructvla.official_run import open_checkpoint
from instructvla.peft_adapters import read_peft_adapter

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
            self.adapter_tensors[f"language_model.base_model.model.model.{name}.default.weight"] = matrix
        for name, rows in self.adapter.embeddings.items():
            own = f"language_model.{'' if name == 'lm_head' else 'model.'}{name}.weight"
            if own not in tensors or not torch.equal(tensors[own], rows.to(tensors[own].dtype)):
                raise ValueError(f"{name} in {str(folder)!r} differs from the checkpoint's; they are not of one run.")
            self.dropped.setdefault(REPEATED_RULE, []).append(f"{folder.name}: {name}")
