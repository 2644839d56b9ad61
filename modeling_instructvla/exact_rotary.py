"""Rotary position embedding whose frequencies survive a cast of the model."""

from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding


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
