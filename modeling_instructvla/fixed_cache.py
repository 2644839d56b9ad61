"""Keys and values in tensors of fixed size, for passes that are compiled or captured once and replayed."""

import torch
from transformers import Qwen2Config


class FixedCache:
    """Keys and values of `length` tokens, allocated once and overwritten from prompt to prompt.

    What a slot holds from an earlier prompt is finite, and no token attends to it: nothing has to be cleared.

    Args:
        passes: 2 for a model whose scale head needs the base pass beside the adapted one; its own are in `base`.
    """

    def __init__(
        self, config: Qwen2Config, rows: int, length: int, passes: int, dtype: torch.dtype, device: torch.device
    ):
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, length, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.base = FixedCache(config, rows, length, passes - 1, dtype, device) if passes > 1 else None
        self.slots: torch.Tensor | None = None

    def write_to(self, slots: torch.Tensor) -> None:
        """Where the next tokens go, (seq,) long."""
        self.slots = slots
        if self.base is not None:
            self.base.write_to(slots)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All of a layer's, (rows, key_value_heads, length, head_dim), with those of new tokens in their slots."""
        self.keys[layer].index_copy_(2, self.slots, keys)
        self.values[layer].index_copy_(2, self.slots, values)
        return self.keys[layer], self.values[layer]
