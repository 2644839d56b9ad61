"""Stage 2's first model from stage 1's: a language expert and a scale head are added (paper section 3.2)."""

from pathlib import Path

import torch

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import random_model

LANGUAGE, ACTION = 0, 1  # places of the experts in the mixture
LORA = ("lora_A", "lora_B")


def stage2_from_stage1(source: str | Path, seed: int = 0, **hub_arguments) -> InstructVLAForConditionalGeneration:
    """A mixture of two experts: action as stage 1 trained it, language zero (B = 0), the scale head new.

    Args:
        source: stage 1's folder or Hub repository.
        seed: of the scale head and of the language expert's A; the global random state is left as it was.
        hub_arguments: such as `revision`.

    Returns:
        A model in float32, with stage 1's processor.

    Raises:
        ValueError: `source` is no stage-1 model.
    """
    stage1 = InstructVLAForConditionalGeneration.from_pretrained(source, dtype=torch.float32, **hub_arguments)
    return extend(stage1, str(source), seed)


def extend(stage1: InstructVLAForConditionalGeneration, name: str, seed: int) -> InstructVLAForConditionalGeneration:
    """The stage-2 model of a stage-1 model, which must not be used any more: both share their frozen tensors."""
    experts = stage1.config.adapter_config.experts
    if experts != 1:
        what = "a stage-2 model already: go on with it by --resume_from_checkpoint" if experts > 1 else "a merged one"
        raise ValueError(
            f"Stage 2 starts from a stage-1 model, with adapter_config.experts=1, but {name} has {experts} and is "
            f"{what}. Give the folder that training/stage1.py wrote."
        )
    processor = stage1.processor
    config = type(stage1.config).from_dict(stage1.config.to_dict(), adapter_config={"experts": 2})
    model = random_model(config, seed)
    state = stage1.state_dict()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_A"):
                parameter[ACTION] = state.pop(name)[0]
            elif name.endswith("lora_B"):
                parameter[:, ACTION] = state.pop(name)[:, 0]
    outcome = model.load_state_dict(state, strict=False, assign=True)
    left = [name for name in outcome.missing_keys if not name.endswith(LORA) and ".scale_head." not in name]
    if left or outcome.unexpected_keys:
        raise ValueError(f"{name}: tensors {left or outcome.unexpected_keys} fit no stage-2 model; save it again.")
    model.processor = processor
    return model
