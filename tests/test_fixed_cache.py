"""The fixed cache: new tokens land in their slots, of the layer, and of the base pass too."""

import torch

from instructvla.configuration_instructvla import nano_text_config
from instructvla.fixed_cache import FixedCache


def test_new_tokens_land_in_their_slots_of_one_layer():
    config = nano_text_config()
    cache = FixedCache(config, rows=2, length=10, passes=2, dtype=torch.float32, device=torch.device("cpu"))
    head_dim = config.hidden_size // config.num_attention_heads
    new = torch.randn(2, config.num_key_value_heads, 3, head_dim)
    filled = cache.at(torch.tensor([4, 5, 6]))
    keys, values = filled.update(new, 2 * new, 1)
    assert keys.shape == values.shape == (2, config.num_key_value_heads, 10, head_dim)
    assert torch.equal(keys[:, :, 4:7], new) and torch.equal(values[:, :, 4:7], 2 * new)
    assert not keys[:, :, :4].any() and not keys[:, :, 7:].any()
    assert not any(tensor.any() for tensor in (*cache.passes[0][0], *cache.passes[1][1]))
    filled.base.update(new, new, 0)
    assert torch.equal(cache.passes[1][0][0][:, :, 4:7], new)


def test_one_pass_needs_one_pair_of_tensors():
    cache = FixedCache(nano_text_config(), 1, 4, 1, torch.float32, torch.device("cpu"))
    assert len(cache.passes) == 1 and cache.at(torch.tensor([0])).base is None
