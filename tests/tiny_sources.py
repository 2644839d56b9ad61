"""What a new model is made from, in tiny: a folder in Eagle2's format, and DINOv2 as timm saves it."""

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from tests.tiny_processor import SPECIAL_TOKENS, byte_tokenizer

PADDING_ROWS = 6  # of the vocabulary, beyond the tokenizer
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "bos_token_id": None,
}
DINO = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 56}
DINO_NAME = "vit_small_patch14_reg4_dinov2"


def tiny_text() -> dict:
    """Fields of its language model."""
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, num_queries=0)
    return TEXT | {
        "vocab_size": len(tokenizer) + PADDING_ROWS,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
    }


def eagle2_config(vision: dict = VISION, text: dict | None = None, **fields) -> dict:
    """Its config.json for these towers; `fields` replace or add to the top level, None takes one away."""
    config = {
        "model_type": "eagle_chat",
        "force_image_size": vision["image_size"],
        "downsample_ratio": 0.5,
        "select_layer": -1,
        "ps_version": "v2",
        "vision_config": vision | {"model_type": "siglip_vision_model"},
        "llm_config": (text or tiny_text()) | {"model_type": "qwen2"},
    }
    return {name: value for name, value in (config | fields).items() if value is not None}


def write_eagle2(folder: Path, config: dict | None = None) -> Path:
    """config.json and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or eagle2_config()), encoding="utf-8")
    byte_tokenizer(SPECIAL_TOKENS, num_queries=0).save_pretrained(folder)
    return folder


def plain_language_model(tied: bool = False, seed: int = 0) -> Qwen2ForCausalLM:
    """transformers' own Qwen2 of these sizes, with random weights."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**tiny_text(), tie_word_embeddings=tied)).eval()


def eagle2_weights(tied: bool = False) -> dict[str, torch.Tensor]:
    """Weights under Eagle2's names, with SigLIP's pooling head; of tied embeddings there is one."""
    language = plain_language_model(tied).state_dict()
    if tied:
        del language["lm_head.weight"]
    vision = SiglipVisionModel(SiglipVisionConfig(**VISION, vision_use_head=True)).state_dict()
    shuffled = 4 * VISION["hidden_size"]
    projector = nn.Sequential(
        nn.LayerNorm(shuffled), nn.Linear(shuffled, 64), nn.GELU(), nn.Linear(64, TEXT["hidden_size"])
    )
    parts = {"language_model.": language, "vision_model.vision_model.": vision, "mlp1.": projector.state_dict()}
    return {
        prefix + name.removeprefix("vision_model."): tensor.contiguous()
        for prefix, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        save_file(part, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def write_dinov2(folder: Path, name: str = DINO_NAME, seed: int = 1, **fields) -> nn.Module:
    """A timm model with random weights, saved as timm saves it; `fields` are its constructor's."""
    torch.manual_seed(seed)
    fields = fields or DINO
    model = timm.create_model(name, pretrained=False, num_classes=0, **fields).eval()
    with torch.no_grad():
        for module in model.modules():
            if type(module).__name__ == "LayerScale":  # timm starts at 1e-5, which would hide what a block does
                module.gamma.uniform_(0.5, 1.5)
    save_for_hf(model, folder, model_args={"num_classes": 0, **fields}, safe_serialization=True)
    return model
