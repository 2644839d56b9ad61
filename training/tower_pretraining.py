"""Stage 0, before the paper's two: a small VLM and its action expert's eyes learn to read scenes from nothing.

The paper starts from towers that others trained (Eagle2's SigLIP and DINOv2). A model that is small enough for a laptop
has none to start from, so both of its towers learn captions and questions through one projector and one language model:
every second picture of a batch goes through the action expert's tower.
"""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.training.trainer import InstructVLATrainer


class TowerPretrainer(InstructVLATrainer):
    """L_LM on conversations about pictures, which both vision towers read in turn.

    Raises:
        ValueError: on construction, towers that can't stand for each other (`check_towers`).
    """

    def __init__(self, model: InstructVLAForConditionalGeneration, *args: Any, **kwargs: Any):
        check_towers(model)
        super().__init__(model, *args, **kwargs)

    def compute_loss(self, model, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        pixel_values = inputs.pop("pixel_values", None)
        if pixel_values is not None:
            own = self.accelerator.unwrap_model(model)
            inputs["inputs_embeds"] = own.insert_images(inputs.pop("input_ids"), both_towers(own, pixel_values))
        return super().compute_loss(model, inputs, *args, **kwargs)


def check_towers(model: InstructVLAForConditionalGeneration) -> None:
    """Refuse a model whose towers make different numbers or widths of patches (ValueError)."""
    vision, action_vision = model.config.vision_config, model.config.action_vision_config
    if action_vision is None:
        raise ValueError("Stage 0 trains both vision towers, but action_vision_config is null; give it one.")
    for name, other in (("image_size", "image_size"), ("patch_size", "patch_size"), ("hidden_size", "embed_dim")):
        if getattr(vision, name) != getattr(action_vision, other):
            raise ValueError(
                f"Stage 0 trains both towers through one projector, but vision_config.{name} is "
                f"{getattr(vision, name)} and action_vision_config.{other} is {getattr(action_vision, other)}; make "
                "them equal."
            )


def both_towers(model: InstructVLAForConditionalGeneration, pixel_values: torch.Tensor) -> torch.Tensor:
    """Image features for the language model, (images, num_image_tokens, text_hidden_size).

    Args:
        pixel_values: (images, 3, image_size, image_size), normalised for the VLM. Pictures 0, 2, … go through the VLM's
            tower, pictures 1, 3, … through the action expert's.
    """
    order = torch.arange(len(pixel_values), device=pixel_values.device)
    features = [model.encode_images(pixel_values[0::2])]
    if len(pixel_values) > 1:
        features.append(model.projector(action_features(model, pixel_values[1::2])))
    place = torch.cat([order[0::2], order[1::2]]).argsort()
    return torch.cat(features)[place]


def action_features(model: InstructVLAForConditionalGeneration, pixel_values: torch.Tensor) -> torch.Tensor:
    """Patches of the action expert's tower, (images, num_patches, embed_dim), with a latent action of zeros, which
    leaves FiLM's biases alone."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    imagenet = (pixel_values * 0.5 + 0.5 - mean.to(pixel_values)) / std.to(pixel_values)
    latent = pixel_values.new_zeros(len(pixel_values), 1, model.config.text_config.hidden_size)
    return model.action_expert.vision(imagenet, latent)
