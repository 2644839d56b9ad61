"""DINOv2 with registers, as timm publishes it: its sizes in our terms, its weights for our image size."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import init_empty_weights
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import Mlp, resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from instructvla.hub_source import local_folder
from instructvla.plain_files import read_json
from instructvla.safetensors_folder import WEIGHT_PATTERNS, SafetensorsFolder

EXAMPLE = "vit_large_patch14_reg4_dinov2"


@dataclass
class DinoV2:
    """What timm's files say.

    Args:
        weights: under timm's names.
        action_vision_config: fields of `ActionVisionConfig` that the weights decide.
    """

    weights: SafetensorsFolder
    action_vision_config: dict[str, Any]

    def shapes(self, image_size: int, patch_size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of what `load` gives for images of `image_size` pixels."""
        shapes = dict(self.weights.shapes)
        if len(shapes.get("pos_embed", ())) == 3:
            shapes["pos_embed"] = (1, (image_size // patch_size) ** 2, shapes["pos_embed"][-1])
        return shapes

    def load(self, names: Iterable[str], image_size: int, patch_size: int) -> dict[str, torch.Tensor]:
        """Some tensors for images of `image_size` pixels: positions resampled as timm does when it loads them."""
        tensors, patches = self.weights.load(names), image_size // patch_size
        if "pos_embed" in tensors and tensors["pos_embed"].shape[1] != patches**2:
            tensors["pos_embed"] = resample_abs_pos_embed(
                tensors["pos_embed"], new_size=[patches, patches], num_prefix_tokens=0
            )
        return tensors


def read_dinov2(source: str) -> DinoV2:
    """Read timm's config.json and map the weights.

    Args:
        source: folder or Hub repository in timm's form, or the name of a timm model.

    Raises:
        ValueError: a name that timm doesn't know, another architecture, weights of another depth, or files that are
            missing or unreadable.
    """
    patterns = ["config.json", *WEIGHT_PATTERNS]
    if Path(source).exists() or "/" in source:
        folder = local_folder(source, patterns)
        model = folder_architecture(folder)
    else:
        model = named_architecture(source)
        folder = local_folder(model.pretrained_cfg["hf_hub_id"], patterns)
    weights, fields = SafetensorsFolder(folder), vision_fields(model)
    require_blocks(weights, fields["depth"])
    return DinoV2(weights, fields)


def require_blocks(weights: SafetensorsFolder, depth: int) -> None:
    """Refuse weights that have more or fewer blocks than their architecture (ValueError)."""
    blocks = {match[1] for name in weights.shapes if (match := re.match(r"blocks\.(\d+)\.", name))}
    if len(blocks) != depth:
        raise ValueError(
            f"The weights in {str(weights.folder)!r} have {len(blocks)} blocks, but their architecture has {depth}; "
            "copy the config.json and the weights of one model there."
        )


def folder_architecture(folder: Path) -> VisionTransformer:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{str(folder)!r} has no config.json; copy timm's there, which names the architecture.")
    config = read_json(folder / "config.json")
    try:
        published = config.get("pretrained_cfg", config)
        means = {name: published[name] for name in ("mean", "std") if name in published}
        model = empty_model(config["architecture"], pretrained_cfg_overlay=means, **config.get("model_args", {}))
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} is not in timm's form ({error!r}); take {EXAMPLE}, as timm publishes it."
        ) from error
    return checked_dinov2(model, str(folder))


def named_architecture(name: str) -> VisionTransformer:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models("*reg4_dinov2*"), n=1, cutoff=0.5)
        hint = near[0] if near else EXAMPLE
        raise ValueError(f"{name!r} is no folder here, and timm has no model of that name. Did you mean {hint!r}?")
    try:
        model = checked_dinov2(empty_model(name), name)
    except RuntimeError as error:  # an unknown tag after the dot
        raise ValueError(f"timm has no weights called {name!r}: {error}") from error
    if not model.pretrained_cfg.get("hf_hub_id"):
        raise ValueError(f"timm publishes no weights for {name!r}; take {EXAMPLE}.")
    return model


def empty_model(name: str, **arguments) -> nn.Module:
    """timm's model without memory for its weights."""
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        return timm.create_model(name, pretrained=False, **arguments)


def checked_dinov2(model: nn.Module, source: str) -> VisionTransformer:
    """The model, if it is one that `FiLMVisionTransformer` computes (ValueError)."""
    if not is_dinov2(model):
        architecture = model.pretrained_cfg.get("architecture")
        raise ValueError(f"{source!r} is {architecture}, not a DINOv2 with registers; give one such as {EXAMPLE}.")
    return model


def is_dinov2(model: nn.Module) -> bool:
    """Whether it is a plain ViT with registers, positions for patches alone, GELU and ImageNet's normalisation."""
    if type(model) is not VisionTransformer or model.reg_token is None or not model.no_embed_class:
        return False
    means = (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    return (
        tuple(map(tuple, means)) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        and isinstance(model.norm_pre, nn.Identity)
        and all(type(block) is Block and type(block.mlp) is Mlp for block in model.blocks)
        and isinstance(model.blocks[0].mlp.act, nn.GELU)
    )


def vision_fields(model: VisionTransformer) -> dict[str, Any]:
    block = model.blocks[0]
    return {
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / model.embed_dim,
        "patch_size": model.patch_embed.patch_size[0],
        "num_register_tokens": model.reg_token.shape[1],
        "layer_norm_eps": block.norm1.eps,
    }
