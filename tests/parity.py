"""Golden tensors from the authors' code, as copied into `tests/fixtures`."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config

FIXTURES = Path(__file__).parent / "fixtures"


def load_fixture(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of one fixture and its description (configuration, seed, equation)."""
    folder = FIXTURES / name
    return load_file(folder / "tensors.safetensors"), json.loads((folder / "fixture.json").read_text())


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    difference = (actual.double() - expected.double()).abs().max()
    return (difference / expected.double().abs().max().clamp_min(1e-12)).item()


def qwen2_config(sizes: dict, **fields) -> Qwen2Config:
    """The language model's configuration from a fixture's sizes."""
    return Qwen2Config(
        vocab_size=sizes["vocab"],
        hidden_size=sizes["hidden"],
        intermediate_size=sizes["intermediate"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
        rope_parameters={"rope_type": "default", "rope_theta": sizes["rope_theta"]},
        rms_norm_eps=sizes["rms_norm_eps"],
        eos_token_id=sizes["eos_token_id"],
        **fields,
    )


def language_weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Official language-model tensors (prefix `weights.`) under our names, the experts of each layer side by side."""
    ours, experts = {}, {}
    for key, value in weights(tensors).items():
        key = re.sub(r"^base_model\.(lora_model\.)?model\.(model\.)?", "", key)
        key = key.replace("base_model.internal_xlora_classifier.layers.", "scale_head.").replace(".base_layer.", ".")
        if match := re.fullmatch(r"(.*\.lora_[AB])\.(default|\d)\.weight", key):
            experts.setdefault(match[1], {})[match[2]] = value
        else:
            ours[key] = value
    for key, by_expert in experts.items():
        side_by_side = 0 if key.endswith("A") else 1
        ours[key] = torch.stack([by_expert[name] for name in sorted(by_expert)], dim=side_by_side)
    return ours


ACTION_NAMES = {
    "VideoGPT.model.": "transformer.",
    "film_vision_model.vision_model.": "vision.",
    ".block.": ".",
    ".scale.": ".film_scale.",
    ".shift.": ".film_shift.",
    "cog_projector": "latent_projector",
    "state_embed": "state_projector",
    "action_embed.": "action_embedding.",
}


def action_weights(tensors: dict[str, torch.Tensor], unused: str = r"vision\.norm\.") -> dict[str, torch.Tensor]:
    """Official action-model tensors (prefix `weights.`) under our names, without those that match `unused`."""
    ours = {}
    for key, value in weights(tensors).items():
        for official, name in ACTION_NAMES.items():
            key = key.replace(official, name)
        if not re.match(unused, key):
            ours[key] = value
    return ours


def weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
