"""The action expert's eyes: DINOv2 blocks modulated by the latent action through FiLM (paper section 3.1)."""

from functools import partial

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_sections import ActionVisionConfig


class FiLMLinear(nn.Linear):
    """γ or β of a block, linear in c. It starts at zero, so that DINOv2 starts as it was trained."""


class FiLMBlock(GradientCheckpointingLayer, Block):
    """timm's DINOv2 block with feature-wise linear modulation between attention and MLP, unless `film` is off.

    x ← x + ls₁(attn(norm₁ x));  x ← (1 + γ(c)) · x + β(c);  x ← x + ls₂(mlp(norm₂ x)).
    """

    def __init__(self, config: ActionVisionConfig, condition_size: int):
        super().__init__(
            config.embed_dim,
            config.num_heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=True,
            init_values=1e-5,
            norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
        )
        self.film_scale = FiLMLinear(condition_size, config.embed_dim) if config.film else None
        self.film_shift = FiLMLinear(condition_size, config.embed_dim) if config.film else None

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """x: (images, tokens, embed_dim); condition c: (images, 1, condition_size)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        if self.film_scale is not None:
            x = (1 + self.film_scale(condition)) * x + self.film_shift(condition)
        return x + self.ls2(self.mlp(self.norm2(x)))


class FiLMVisionTransformer(nn.Module):
    """DINOv2 with registers up to block `feature_layer`; parameter names are timm's, plus the two of FiLM."""

    def __init__(self, config: ActionVisionConfig, condition_size: int):
        super().__init__()
        self.num_prefix_tokens = 1 + config.num_register_tokens
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.reg_token = nn.Parameter(torch.zeros(1, config.num_register_tokens, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_patches, config.embed_dim))
        self.patch_embed = PatchEmbed(config.image_size, config.patch_size, embed_dim=config.embed_dim)
        self.blocks = nn.ModuleList(FiLMBlock(config, condition_size) for _ in range(config.feature_layer + 1))

    def forward(self, pixel_values: torch.Tensor, latent_action: torch.Tensor) -> torch.Tensor:
        """Patch tokens of the last block, without final norm.

        Args:
            pixel_values: (images, 3, image_size, image_size), ImageNet-normalised.
            latent_action: C, (images, num_action_queries, condition_size); c is its mean over the queries.

        Returns:
            (images, num_patches, embed_dim).
        """
        condition = latent_action.mean(dim=1, keepdim=True)
        x = self.embed(pixel_values)
        for block in self.blocks:
            x = block(x, condition)
        return x[:, self.num_prefix_tokens :]

    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[cls, registers, patches + positions]: (images, num_prefix_tokens + num_patches, embed_dim)."""
        patches = self.patch_embed(pixel_values) + self.pos_embed
        prefix = torch.cat([self.cls_token, self.reg_token], dim=1).expand(len(patches), -1, -1)
        return torch.cat([prefix, patches], dim=1)
