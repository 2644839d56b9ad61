"""Rotary position embedding whose frequencies survive a cast of the model."""

import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding, rotate_half

Rotary = tuple[torch.Tensor, torch.Tensor]  # cos and sin of the tokens' angles, each (batch, tokens, head_dim)


class ExactRotaryEmbedding(Qwen2RotaryEmbedding):
    """Qwen2's (and Llama's) rotary embedding, float32 also after `model.to(torch.bfloat16)`.

    In bfloat16 the rounded frequencies would turn a token at position 400 by almost a radian.
    """

    def _apply(self, fn, recurse=True):
        exact = {name: buffer for name, buffer in self.named_buffers() if not buffer.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            moved = getattr(self, name)
            if not moved.is_meta:
                setattr(self, name, buffer.to(moved.device))
        return self


def rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (batch, heads, tokens, head_dim) by angles of (batch, tokens, head_dim)."""
    return heads * cos.unsqueeze(1) + rotate_half(heads) * sin.unsqueeze(1)
