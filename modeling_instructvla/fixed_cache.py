"""Keys and values in tensors of fixed size, for passes that are compiled or captured once and replayed."""

from dataclasses import dataclass

import torch
from transformers import Qwen2Config

Pairs = tuple[tuple[torch.Tensor, torch.Tensor], ...]


class FixedCache:
    """Keys and values of `length` tokens, allocated once and overwritten from prompt to prompt.

    What a slot holds from an earlier prompt is finite, and no token attends to it: nothing has to be cleared.

    Args:
        passes: 2 for a model whose scale head needs the base pass beside the adapted one.
    """

    def __init__(
        self, config: Qwen2Config, rows: int, length: int, passes: int, dtype: torch.dtype, device: torch.device
    ):
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (rows, config.num_key_value_heads, length, head_dim)
        self.passes: tuple[Pairs, ...] = tuple(
            tuple(
                (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
                for _ in range(config.num_hidden_layers)
            )
            for _ in range(passes)
        )

    def at(self, slots: torch.Tensor) -> "FilledCache":
        """For tokens that go to these slots, (seq,) long."""
        own, *base = (FilledCache(pairs, slots) for pairs in self.passes)
        own.base = base[0] if base else None
        return own


@dataclass
class FilledCache:
    """The cache of one pass of the model.

    Args:
        layers: keys and values, each (rows, key_value_heads, length, head_dim).
        slots: of the new tokens, (seq,) long.
        base: of the base pass beside an adapted one.
    """

    layers: Pairs
    slots: torch.Tensor
    base: "FilledCache | None" = None

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All of a layer's, those of new tokens in their slots."""
        for all_of, new in zip(self.layers[layer], (keys, values), strict=True):
            all_of.index_copy_(2, self.slots, new)
        return self.layers[layer]
