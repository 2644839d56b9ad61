"""A single adaptation expert merged into the base weights, for deployment of stage 1 (section 3.1)."""

import copy
from dataclasses import replace

import torch
from accelerate import init_empty_weights

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.peft_adapters import adapted_layers, is_adaptation


@torch.no_grad()
def merge_expert(model: InstructVLAForConditionalGeneration) -> InstructVLAForConditionalGeneration:
    """A model whose only expert is part of the base weights: the same actions, without the adapter's cost.

    W + (α/r) B A is computed in float32 and rounded to the model's type. What is not adapted is shared with `model`.

    Raises:
        ValueError: for a model with several experts, or none, and for quantised weights.
    """
    model.check_not_quantized("merged")
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
