"""Adaptation experts as PEFT adapters, in and out, and a single expert merged into the base weights (section 3.1)."""

import copy
import json
import math
import pickle
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import init_empty_weights
from peft import LoraConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Qwen2ForCausalLM

from instructvla.checkpoint_instructvla import staged_checkpoint
from instructvla.configuration_sections import is_positive_integer, is_positive_number, require
from instructvla.hub_source import local_folder

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


# Reading and writing PEFT's files


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
        found = f"holds {listed(unknown)}" if unknown else "holds no LoRA matrix"
        raise ValueError(f"The adapter in {source} {found}; only LoRA on a Qwen2ForCausalLM's linear layers is read.")
    adapter = PeftAdapter(matrices, config, embeddings)
    check_pairs(adapter)
    return adapter


def read_lora_config(path: Path) -> LoraConfig:
    """PEFT's configuration of a plain LoRA adapter.

    Raises:
        ValueError: as `read_peft_adapter`.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} is no PEFT adapter: it has no {path.name}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        kind = values.get("peft_type") if isinstance(values, dict) else values
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


# Experts and adapters


def adapted_layers(model) -> dict[str, torch.nn.Module]:
    """The adapted linear layers by their names in the language model: "layers.N.self_attn.q_proj", …"""
    modules = model.language_model.named_modules()
    return {name: module for name, module in modules if hasattr(module, "lora_A")}


def expert_index(model, expert: str) -> int:
    names = model.config.adapter_config.expert_names
    if expert not in names:
        known = f"it has {', '.join(names)}" if names else "it has none, as after a merge"
        hint = "; the language expert comes with stage 2" if names == ["action"] and expert == "language" else ""
        raise ValueError(f"This model has no {expert!r} expert: {known}{hint}.")
    return names.index(expert)


def expert_adapter(model, expert: str, base: str | None = None) -> PeftAdapter:
    """One expert as an adapter of the plain language model: what that expert does at gate 1.

    PEFT loads half-precision adapters as float32; `autocast_adapter_dtype=False` makes its numbers equal ours.

    Args:
        expert: one of `model.config.adapter_config.expert_names`.
        base: where the plain language model is found; it goes into the adapter's configuration.

    Raises:
        ValueError: if the model has no such expert.
    """
    index, adapters = expert_index(model, expert), model.config.adapter_config
    matrices = {}
    for name, layer in adapted_layers(model).items():
        matrices[f"{name}.lora_A"] = layer.lora_A[index].detach().clone()
        matrices[f"{name}.lora_B"] = layer.lora_B[:, index].detach().clone(memory_format=torch.contiguous_format)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        r=adapters.rank,
        lora_alpha=int(adapters.alpha) if adapters.alpha == int(adapters.alpha) else adapters.alpha,
        lora_dropout=adapters.dropout,
        inference_mode=True,
    )
    config.target_modules = list(adapters.target_modules)  # PEFT makes it a set, which is saved in any order
    return PeftAdapter(matrices, config, {})


@torch.no_grad()
def load_expert(model, expert: str, adapter: PeftAdapter) -> None:
    """Replace one expert's matrices by an adapter's, in place; nothing is changed when the adapter does not fit.

    Another scaling than the model's is folded into B, exactly if their ratio is a power of two. A smaller rank is
    filled up with zeros in B, which changes nothing. The adapter's dropout is not taken: it is one for all experts.

    Raises:
        ValueError: for an unknown expert, layers that are not the model's, sizes or a rank that don't fit, and
            embeddings other than the model's.
    """
    index, layers = expert_index(model, expert), adapted_layers(model)
    check_layers(adapter, layers)
    check_embeddings(adapter, model.language_model)
    rank = adapter.config.r
    for name, layer in layers.items():
        layer.lora_A[index, :rank] = adapter.matrices[f"{name}.lora_A"].to(layer.lora_A)
        layer.lora_B[:, index] = 0
        folded = adapter.matrices[f"{name}.lora_B"].float() * (adapter.scaling / layer.scaling)
        layer.lora_B[:, index, :rank] = folded.to(layer.lora_B)


def check_layers(adapter: PeftAdapter, layers: dict[str, torch.nn.Module]) -> None:
    given = {name.rpartition(".")[0] for name in adapter.matrices}
    for these, problem in ((given - layers.keys(), "adapts"), (layers.keys() - given, "does not adapt")):
        if these:
            raise ValueError(
                f"The adapter {problem} {listed(these)}, but a model's experts adapt the same layers, all of those in "
                "adapter_config.target_modules."
            )
    own_rank = next(iter(layers.values())).lora_A.shape[1]
    if adapter.config.r > own_rank:
        raise ValueError(f"The adapter's rank is {adapter.config.r}, but this model's experts hold {own_rank} at most.")
    for name, layer in layers.items():
        shapes = [tuple(adapter.matrices[f"{name}.{half}"].shape) for half in ("lora_A", "lora_B")]
        fitting = [(adapter.config.r, layer.in_features), (layer.out_features, adapter.config.r)]
        if shapes != fitting:
            raise ValueError(
                f"The adapter's A and B of {name} are {shapes[0]} and {shapes[1]}, but {fitting[0]} and {fitting[1]} "
                "fit this model; it was made for another language model."
            )


def check_embeddings(adapter: PeftAdapter, language_model: torch.nn.Module) -> None:
    """Refuse embeddings that were trained along: an expert has none, and the other experts would get them, too."""
    for name, rows in adapter.embeddings.items():
        own = getattr(language_model, name).weight
        if rows.shape != own.shape or not torch.equal(rows.to(own), own):
            raise ValueError(
                f"The adapter brings {name} {tuple(rows.shape)}, which differs from this model's {tuple(own.shape)}; "
                "an expert can't hold embeddings. Train the adapter without them, or on this model's base."
            )


def listed(names: Iterable[str], most: int = 6) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# The plain language model


def plain_language_model(model) -> Qwen2ForCausalLM:
    """The language model without its experts, as transformers' own class, on the same weights: nothing is copied."""
    weights = {
        name if name.startswith("lm_head.") else f"model.{name}": tensor
        for name, tensor in model.language_model.state_dict().items()
        if not is_adaptation(name)
    }
    with init_empty_weights(include_buffers=False):
        plain = Qwen2ForCausalLM(copy.deepcopy(model.config.text_config))
    plain.load_state_dict(weights, assign=True)
    return plain.to(model.device).eval()


def is_adaptation(name: str) -> bool:
    return name.endswith((".lora_A", ".lora_B")) or name.startswith("scale_head.")


def export_peft(model, expert: str, output: str | Path, base_output: str | Path | None = None) -> PeftAdapter:
    """Write one expert as a PEFT adapter folder and, if asked, the plain Qwen2 that it adapts, with its tokenizer.

    Returns:
        The adapter that was written.

    Raises:
        ValueError: if the model has no such expert, or for folders that can't be written or hold something else.
    """
    check_export_folders(output, base_output)
    adapter = expert_adapter(model, expert, None if base_output is None else str(base_output))
    with ExitStack() as stack:
        write_peft_adapter(adapter, stack.enter_context(staged_checkpoint(output)))
        if base_output is not None:
            folder = stack.enter_context(staged_checkpoint(base_output))
            plain_language_model(model).save_pretrained(folder)
            if (processor := model.processor_or_none()) is not None:
                processor.tokenizer.save_pretrained(folder)
    return adapter


def check_export_folders(output: str | Path, base_output: str | Path | None) -> None:
    if (Path(output) / "config.json").exists():
        raise ValueError(f"{output} holds a model; give the adapter a folder of its own.")
    if base_output is not None and Path(base_output).resolve() == Path(output).resolve():
        raise ValueError(f"The adapter and its base model can't both go to {output}; give two folders.")


# Merging


@torch.no_grad()
def merge_expert(model) -> PreTrainedModel:
    """A model whose only expert is part of the base weights: the same actions, without the adapter's cost.

    W + (α/r) B A is computed in float32 and rounded to the model's type. What is not adapted is shared with `model`.

    Raises:
        ValueError: for a model with several experts, or none.
    """
    adapters = model.config.adapter_config
    if adapters.experts != 1:
        reason = (
            "the scale head gates its experts anew for each token, so that no single weight matrix does the same"
            if adapters.experts
            else "it has no experts"
        )
        raise ValueError(f"This model can't be merged: {reason}. Only stage-1 models, of one expert, are.")
    config = copy.deepcopy(model.config)
    config.adapter_config = replace(adapters, experts=0)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not is_adaptation(name)}
    for name, layer in adapted_layers(model).items():
        update = layer.lora_B[:, 0].float() @ layer.lora_A[0].float()
        merged_weight = layer.weight.float().add(update, alpha=layer.scaling)
        weights[f"language_model.{name}.weight"] = merged_weight.to(layer.weight.dtype)
    with init_empty_weights(include_buffers=False):
        merged = type(model)(config)
    merged.load_state_dict(weights, assign=True)
    if (processor := model.processor_or_none()) is not None:
        merged.processor = processor
    return merged.to(model.device)
