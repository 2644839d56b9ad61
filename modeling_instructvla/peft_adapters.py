"""Adaptation experts as PEFT adapters of the plain language model, out and in (section 3.1)."""

import copy
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import init_empty_weights
from peft import LoraConfig
from transformers import Qwen2Config, Qwen2ForCausalLM

from instructvla.checkpoint_instructvla import staged_checkpoint
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.peft_files import PeftAdapter, write_peft_adapter
from instructvla.plain_files import listed, read_json


def adapted_layers(model: InstructVLAForConditionalGeneration) -> dict[str, torch.nn.Module]:
    """The adapted linear layers by their names in the language model: "layers.N.self_attn.q_proj", …"""
    modules = model.language_model.named_modules()
    return {name: module for name, module in modules if hasattr(module, "lora_A")}


def expert_index(model: InstructVLAForConditionalGeneration, expert: str) -> int:
    names = model.config.adapter_config.expert_names
    if expert not in names:
        known = f"it has {', '.join(names)}" if names else "it has none, as after a merge"
        hint = "; the language expert comes with stage 2" if names == ["action"] and expert == "language" else ""
        raise ValueError(f"This model has no {expert!r} expert: {known}{hint}.")
    return names.index(expert)


def expert_adapter(model: InstructVLAForConditionalGeneration, expert: str, base: str | None = None) -> PeftAdapter:
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
def load_expert(model: InstructVLAForConditionalGeneration, expert: str, adapter: PeftAdapter) -> None:
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
                f"The adapter {problem} {listed(sorted(these))}, but a model's experts adapt the same layers, all "
                "of those in adapter_config.target_modules."
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


def plain_language_model(model: InstructVLAForConditionalGeneration) -> Qwen2ForCausalLM:
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


def export_peft(
    model: InstructVLAForConditionalGeneration, expert: str, output: str | Path, base_output: str | Path | None = None
) -> PeftAdapter:
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
    require_no_other_model(output, "the adapter")
    if base_output is None:
        return
    require_no_other_model(base_output, "the base model", Qwen2Config.model_type)
    if Path(base_output).resolve() == Path(output).resolve():
        raise ValueError(f"The adapter and its base model can't both go to {output}; give two folders.")


def require_no_other_model(folder: str | Path, new: str, replaceable: str | None = None) -> None:
    """Refuse a folder with a model that writing `new` there would destroy; one of type `replaceable` is replaced."""
    config = Path(folder, "config.json")
    if config.exists() and (replaceable is None or read_json(config).get("model_type") != replaceable):
        raise ValueError(f"{folder} holds a model; give {new} a folder of its own.")
