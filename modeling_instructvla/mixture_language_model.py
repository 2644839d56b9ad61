"""Qwen2 with a mixture of adaptation experts: two passes, two KV caches, no hooks (paper section 3.1)."""

from functools import partial

import torch
from torch import nn
from transformers import DynamicCache, Qwen2Config
from transformers.activations import ACT2FN
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2PreTrainedModel,
    Qwen2RMSNorm,
    eager_attention_forward,
)

from .adaptation_experts import AdaptedLinear, BaseLinear, ScaleHead
from .configuration_sections import AdapterConfig
from .exact_rotary import ExactRotaryEmbedding, rotated
from .fixed_cache import FilledCache
from .linear_group import LinearGroup


class MixtureCache(DynamicCache):
    """Keys and values of the adapted pass, and in `base` those of the base pass that feeds the scale head."""

    def __init__(self, config: Qwen2Config):
        super().__init__(config=config)
        self.base = DynamicCache(config=config)

    def reset(self):
        super().reset()
        self.base.reset()

    def crop(self, *args, **kwargs):
        super().crop(*args, **kwargs)
        self.base.crop(*args, **kwargs)

    def reorder_cache(self, beam_idx: torch.Tensor):
        super().reorder_cache(beam_idx)
        self.base.reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int):
        super().batch_repeat_interleave(repeats)
        self.base.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor):
        super().batch_select_indices(indices)
        self.base.batch_select_indices(indices)


def make_linear(adapters: AdapterConfig, name: str, in_features: int, out_features: int, bias: bool) -> BaseLinear:
    if adapters.experts == 0 or name not in adapters.target_modules:
        return BaseLinear(in_features, out_features, bias=bias)
    return AdaptedLinear(
        in_features,
        out_features,
        bias,
        experts=adapters.experts,
        rank=adapters.rank,
        alpha=adapters.alpha,
        dropout=adapters.dropout,
    )


def of_last(tokens: torch.Tensor | None, last: int | None) -> torch.Tensor | None:
    """What belongs to the last tokens of (batch, seq, …); what is the same for all tokens stays as it is."""
    return tokens if last is None or tokens is None or tokens.shape[1] == 1 else tokens[:, -last:]


class MixtureAttention(nn.Module):
    """Qwen2's grouped-query attention with adapted projections."""

    is_causal = True

    def __init__(self, config: Qwen2Config, adapters: AdapterConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        linear = partial(make_linear, adapters)
        query_size, key_size = (n * self.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = linear("q_proj", config.hidden_size, query_size, bias=True)
        self.k_proj = linear("k_proj", config.hidden_size, key_size, bias=True)
        self.v_proj = linear("v_proj", config.hidden_size, key_size, bias=True)
        self.o_proj = linear("o_proj", query_size, config.hidden_size, bias=False)
        self.groups = LinearGroup(self.k_proj, self.v_proj, self.q_proj), LinearGroup(self.o_proj)

    def forward(self, hidden, gates, mask, rotary, cache, last: int | None) -> torch.Tensor:
        """What the `last` tokens, or all, see of all: (batch, last or seq, hidden_size)."""
        inputs, output = self.groups
        asking, asking_gates = of_last(hidden, last), of_last(gates, last)
        if asking is hidden:
            parts = inputs(hidden, gates)
        else:
            parts = self.k_proj(hidden, gates), self.v_proj(hidden, gates), self.q_proj(asking, asking_gates)
        split = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        key, value, query = split  # (batch, heads, seq, head_dim)
        query, key = rotated(query, *(of_last(part, last) for part in rotary)), rotated(key, *rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.attention_dropout if self.training else 0.0
        attended, _ = attend(self, query, key, value, mask, dropout=dropout, scaling=self.head_dim**-0.5)
        return output(attended.reshape(*asking.shape[:-1], -1), asking_gates)[0]


class MixtureMLP(nn.Module):
    """Qwen2's gated MLP with adapted projections."""

    def __init__(self, config: Qwen2Config, adapters: AdapterConfig):
        super().__init__()
        linear = partial(make_linear, adapters, bias=False)
        self.gate_proj = linear("gate_proj", config.hidden_size, config.intermediate_size)
        self.up_proj = linear("up_proj", config.hidden_size, config.intermediate_size)
        self.down_proj = linear("down_proj", config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.groups = LinearGroup(self.gate_proj, self.up_proj), LinearGroup(self.down_proj)

    def forward(self, hidden, gates) -> torch.Tensor:
        inputs, output = self.groups
        gate, up = inputs(hidden, gates)
        return output(self.activation(gate) * up, gates)[0]


class MixtureDecoderLayer(GradientCheckpointingLayer):
    """One pre-norm decoder layer; `gates` None runs it without its adapters."""

    def __init__(self, config: Qwen2Config, adapters: AdapterConfig, layer_idx: int):
        super().__init__()
        self.self_attn = MixtureAttention(config, adapters, layer_idx)
        self.mlp = MixtureMLP(config, adapters)
        self.input_layernorm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden, gates, mask, rotary, past_key_values=None, last: int | None = None) -> torch.Tensor:
        """Of the `last` tokens, all by default; they attend to all. `mask` is that of these tokens."""
        attended = self.self_attn(self.input_layernorm(hidden), gates, mask, rotary, past_key_values, last)
        hidden = of_last(hidden, last) + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden), of_last(gates, last))


class MixtureLanguageModel(Qwen2PreTrainedModel):
    """Qwen2 whose linear layers are adapted by one expert (stage 1) or by a gated mixture of experts (stage 2).

    Without experts, and with adapters off, it computes what `Qwen2ForCausalLM` computes, bit for bit.
    """

    _no_split_modules = ["MixtureDecoderLayer"]

    def __init__(self, config: Qwen2Config, adapters: AdapterConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(MixtureDecoderLayer(config, adapters, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = ExactRotaryEmbedding(config=config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.experts = adapters.experts
        self.scale_head = None
        if adapters.experts > 1:
            self.scale_head = ScaleHead(
                config.hidden_size,
                adapters.experts,
                adapters.scale_head_depth,
                adapters.scale_head_size,
                adapters.scale_head_dropout,
            )
        self.post_init()

    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, AdaptedLinear):
            module.reset_experts()

    def fuse_linears(self) -> None:
        """For inference: layers on the same input become one product each, up to rounding (`LinearGroup`)."""
        for layer in self.layers:
            for group in (*layer.self_attn.groups, *layer.mlp.groups):
                group.fuse()

    def new_cache(self) -> DynamicCache:
        """An empty KV cache for all the passes that this model makes."""
        return DynamicCache(config=self.config) if self.scale_head is None else MixtureCache(self.config)

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor,
        cache: DynamicCache | FilledCache | None = None,
        position_ids: torch.Tensor | None = None,
        adapters: bool = True,
        last: int | None = None,
    ) -> torch.Tensor:
        """Final hidden states (after the final norm) of the adapted model.

        Args:
            inputs_embeds: (batch, seq, hidden_size).
            attention_mask: (batch, cached + seq), 1 where a token counts; or (batch, 1, seq, keys), True where a token
                attends, which needs `position_ids`.
            cache: keys and values of the tokens before these, extended in place; from `new_cache`, or a `FixedCache`'s.
            position_ids: (batch, seq); default: counted by the mask, so that padding takes no position.
            adapters: False runs the base model alone, in one pass; what fills a cache goes on the same way.
            last: of how many tokens, from the end, hidden states are wanted; default: of all.

        Returns:
            (batch, last or seq, hidden_size).

        Raises:
            ValueError: for a model without adapters that is told to leave them off, and for a cache that the scale head
                can't go on with.
        """
        self.check_adapters(adapters, cache)
        if position_ids is None:
            positions = attention_mask.long().cumsum(dim=1) - 1
            position_ids = positions.clamp(min=0)[:, -inputs_embeds.shape[1] :]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
        )
        rotary = self.rotary_emb(inputs_embeds, position_ids)
        gates = self.gates(inputs_embeds, mask, rotary, cache) if adapters and self.experts else None
        return self.run_layers(inputs_embeds, gates, mask, rotary, cache, last)

    def check_adapters(self, adapters: bool, cache: DynamicCache | None) -> None:
        if not isinstance(adapters, bool):
            raise ValueError(f"adapters is {adapters!r}, but it must be True, or False for the base model alone.")
        if not adapters and self.experts == 0:
            raise ValueError(
                "This model has no adapters to leave out (adapter_config.experts is 0): what its experts learnt may be "
                "merged into its weights. Take the checkpoint from before the merge."
            )
        if isinstance(cache, MixtureCache):
            expected = cache.get_seq_length() if adapters else 0
            if cache.base.get_seq_length() != expected:
                filled, now = ("without", "with") if adapters else ("with", "without")
                raise ValueError(
                    f"The cache was filled {filled} adapters, so it can't go on {now} them; take a new one."
                )

    def gates(self, inputs_embeds, mask, rotary, cache) -> torch.Tensor:
        """λ: 1 for the single expert of stage 1; in stage 2 the scale head's reading of pass 1, adapters off."""
        if self.scale_head is None:
            return inputs_embeds.new_ones(1, 1, 1)
        with torch.no_grad():
            base_hidden = self.run_layers(inputs_embeds, None, mask, rotary, None if cache is None else cache.base)
        return self.scale_head(base_hidden)

    def run_layers(self, hidden, gates, mask, rotary, cache, last: int | None = None) -> torch.Tensor:
        """All layers; of the last one, only what the `last` tokens need."""
        *lower, top = self.layers
        for layer in lower:
            hidden = layer(hidden, gates, mask, rotary, past_key_values=cache, last=None)
        mask = mask if last is None else self.mask_of_last(mask, last, hidden)
        return self.norm(top(hidden, gates, mask, rotary, past_key_values=cache, last=last))

    def mask_of_last(self, mask: torch.Tensor | None, last: int, hidden: torch.Tensor) -> torch.Tensor | None:
        """The last tokens' rows of the mask. No mask stands for a causal one, which PyTorch's attention would align
        with the first key, not with the last, where there are fewer queries than keys."""
        if mask is not None:
            return mask[..., -last:, :] if mask.ndim == 4 else mask  # of two dimensions: padding, for flash attention
        if last == 1 or self.config._attn_implementation != "sdpa":
            return None
        seq = hidden.shape[1]
        return torch.ones(seq, seq, dtype=torch.bool, device=hidden.device).tril()[None, None, -last:]
