"""Adapter folders as PEFT writes and reads them; only plain LoRA on a Qwen2's linear layers."""

import math
import pickle
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from instructvla.configuration_sections import is_positive_integer, is_positive_number, require
from instructvla.hub_source import local_folder
from instructvla.plain_files import listed, read_json

MATRIX = re.compile(r"base_model\.model\.(?:model\.)?(layers\.\d+\.(?:self_attn|mlp)\.\w+_proj\.lora_[AB])\.weight")
EMBEDDING = re.compile(r"base_model\.model\.(?:model\.)?(embed_tokens|lm_head)\.weight")
# Settings that may differ from PEFT's defaults: read here, told by the tensors' names, or of no influence on results.
FREE_SETTINGS = {
    *("r", "lora_alpha", "use_rslora", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("task_type", "inference_mode", "lora_dropout", "eva_config", "runtime_config"),
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
}
INITS_ON_PLAIN_WEIGHTS = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base weights, too


class PeftAdapter(NamedTuple):
    """A plain LoRA adapter for one Qwen2.

    Args:
        matrices: "layers.N.self_attn.q_proj.lora_A" → (r, in), "….lora_B" → (out, r), each A with its B.
        config: PEFT's own, with one rank and one alpha for all layers.
        embeddings: "embed_tokens" and "lm_head" → (vocabulary, hidden), where PEFT saved them, too.
    """

    matrices: dict[str, torch.Tensor]
    config: LoraConfig
    embeddings: dict[str, torch.Tensor]

    @property
    def scaling(self) -> float:
        """What multiplies B A x: α / r, or α / √r in rank-stabilised LoRA."""
        rank = self.config.r
        return self.config.lora_alpha / (math.sqrt(rank) if self.config.use_rslora else rank)


def read_peft_adapter(source: str | Path) -> PeftAdapter:
    """The adapter in a folder or Hub repository that PEFT's `save_pretrained` wrote; no code in it is run.

    Raises:
        ValueError: if a file is missing or unreadable, or if the adapter is more than plain LoRA on Qwen2's linear
            layers: DoRA, biases, other saved modules, a rank or alpha of some layers' own, ….
    """
    folder = local_folder(source, [CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME])
    config = read_lora_config(folder / CONFIG_NAME)
    matrices, embeddings, unknown = {}, {}, []
    for name, tensor in read_tensors(folder).items():
        if match := MATRIX.fullmatch(name):
            matrices[match[1]] = tensor
        elif match := EMBEDDING.fullmatch(name):
            embeddings[match[1]] = tensor
        else:
            unknown.append(name)
    if unknown or not matrices:
        found = f"holds {listed(sorted(unknown))}" if unknown else "holds no LoRA matrix"
        raise ValueError(f"The adapter in {source} {found}; only LoRA on a Qwen2ForCausalLM's linear layers is read.")
    adapter = PeftAdapter(matrices, config, embeddings)
    check_pairs(adapter)
    return adapter


def read_lora_config(path: Path) -> LoraConfig:
    """PEFT's configuration of a plain LoRA adapter.

    Raises:
        ValueError: as `read_peft_adapter`.
    """
    if not path.is_file():
        raise ValueError(f"{path.parent} is no PEFT adapter: it has no {path.name}.")
    values = read_json(path)
    if (kind := values.get("peft_type")) != "LORA":
        raise ValueError(f"{path}: peft_type is {kind!r}, but an adaptation expert is a 'LORA' adapter.")
    defaults = asdict(LoraConfig())
    for name, value in values.items():
        if value and name not in FREE_SETTINGS and value != defaults.get(name):
            raise ValueError(f"{path} sets {name} to {value!r}, which an adaptation expert, plain LoRA, does not have.")
    require(is_positive_integer(values.get("r")), "r of the adapter", values.get("r"), "an integer above 0")
    alpha = values.get("lora_alpha")
    require(is_positive_number(alpha), "lora_alpha of the adapter", alpha, "a number above 0")
    start = values.get("init_lora_weights", True)
    allowed = "a start that leaves the base weights alone; convert the adapter to plain LoRA with PEFT"
    require(start in INITS_ON_PLAIN_WEIGHTS, "init_lora_weights of the adapter", start, allowed)
    known = {field.name for field in fields(LoraConfig)} - {"runtime_config"}
    try:
        return LoraConfig(**{name: value for name, value in values.items() if name in known})
    except (TypeError, ValueError) as error:
        raise ValueError(f"PEFT can't read {path}: {error}") from error


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors in an adapter folder, on the CPU; of an old pickled file only tensors are read."""
    path = next((folder / name for name in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME) if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"{folder} has a {CONFIG_NAME}, but no {SAFETENSORS_WEIGHTS_NAME}; copy it whole.")
    try:
        if path.name == SAFETENSORS_WEIGHTS_NAME:
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is truncated, corrupt or no tensor file; copy it again. ({error})") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} holds more than named tensors; save the adapter with a current PEFT.")
    return tensors


def check_pairs(adapter: PeftAdapter) -> None:
    """Refuse a matrix without its other half, of another rank than the adapter's, or with NaN or infinite values."""
    rank = adapter.config.r
    for name, matrix in adapter.matrices.items():
        linear, _, half = name.rpartition(".")
        other = f"{linear}.{'lora_B' if half == 'lora_A' else 'lora_A'}"
        if other not in adapter.matrices:
            raise ValueError(f"The adapter holds {name} but no {other}.")
        if matrix.ndim != 2 or matrix.shape[0 if half == "lora_A" else 1] != rank:
            raise ValueError(f"The adapter's {name} is {tuple(matrix.shape)}, which does not have its rank, {rank}.")
        if not matrix.isfinite().all():
            raise ValueError(f"The adapter's {name} holds NaN or infinite values.")


def write_peft_adapter(adapter: PeftAdapter, folder: str | Path) -> None:
    """The files that `PeftModel.from_pretrained` reads, into an existing folder."""
    tensors = {f"base_model.model.model.{name}.weight": matrix for name, matrix in adapter.matrices.items()}
    for name, rows in adapter.embeddings.items():
        tensors[f"base_model.model.{'' if name == 'lm_head' else 'model.'}{name}.weight"] = rows
    save_file(tensors, Path(folder) / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    adapter.config.save_pretrained(folder)
