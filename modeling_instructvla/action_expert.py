"""The action expert: a small transformer that flows from noise to action chunks, steered by C (paper section 3.1)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from .configuration_instructvla import InstructVLAConfig
from .exact_rotary import ExactRotaryEmbedding, Rotary, rotated
from .film_vision import FiLMVisionTransformer
from .flow_matching import (
    FlowSteps,
    flow_matching_loss,
    flow_steps,
    integrate,
    interpolate,
    sample_flow_time,
    target_velocity,
    time_embedding,
)
from .real_time_chunking import ChunkGuidance, guided


class PrefixCache:
    """Keys and values of the prefix, by layer. Once frozen, tokens attend to it and leave it as it is."""

    def __init__(self):
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.frozen = False

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the new tokens attend to: while the cache is filled, themselves; then the prefix and themselves."""
        if not self.frozen:
            self.layers.append((keys, values))
            return keys, values
        old_keys, old_values = self.layers[layer]
        return torch.cat([old_keys, keys], dim=-2), torch.cat([old_values, values], dim=-2)

    def repeat_interleave(self, repeats: int) -> None:
        """Each row several times, one after the other."""
        self.layers = [
            (k.repeat_interleave(repeats, dim=0), v.repeat_interleave(repeats, dim=0)) for k, v in self.layers
        ]


class TopLayer(LlamaDecoderLayer):
    """The last layer, of which a prefix that nobody reads leaves only keys and values."""

    def forward(self, hidden_states: torch.Tensor, read: bool = True, **options) -> torch.Tensor | None:
        """As other layers; without `read`, the cache is filled, and None returned."""
        if read:
            return super().forward(hidden_states, **options)
        attention, hidden = self.self_attn, self.input_layernorm(hidden_states)
        heads = (*hidden.shape[:-1], -1, attention.head_dim)
        key, value = (part(hidden).view(heads).transpose(1, 2) for part in (attention.k_proj, attention.v_proj))
        key = rotated(key, *options["position_embeddings"])
        options["past_key_values"].update(key, value, attention.layer_idx)
        return None


class ExpertTransformer(LlamaModel):
    """Llama's layers on embeddings; its masks are arbitrary, which flash and flex attention can't serve."""

    _supports_flash_attn = False
    _supports_flex_attn = False

    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.embed_tokens = None
        self.rotary_emb = ExactRotaryEmbedding(config=config)
        for layer in self.layers:
            layer.self_attn.is_causal = False  # without a mask every token sees all
        self.layers[-1].__class__ = TopLayer  # the same weights

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        mask: torch.Tensor | None,
        rotary: Rotary,
        cache: PrefixCache | None = None,
        read: bool = True,
    ) -> torch.Tensor | None:
        """Hidden states after the final norm, (batch, tokens, hidden_size).

        Args:
            inputs_embeds: (batch, tokens, hidden_size).
            mask: is added to the attention logits, (1, 1, tokens, keys); None adds nothing.
            rotary: cos and sin at the tokens' places, each (1, tokens, head_dim).
            read: False fills the cache alone: the top layer computes only its keys and values. None is returned.
        """
        options = {"attention_mask": mask, "position_embeddings": rotary, "past_key_values": cache}
        hidden = inputs_embeds
        for layer in self.layers[:-1]:
            hidden = layer(hidden, **options)
        hidden = self.layers[-1](hidden, read=read, **options)
        return self.norm(hidden) if read else None


class ExpertLinear(nn.Linear):
    """A linear layer around the expert's transformer. It starts as torch's own do, as in the released training: from
    transformers' normal distribution of one width for all sizes, signals through the deep action head would fade."""


def silu_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with SiLU between them (paper appendix E.3: "a simple two-layer MLP with SiLU activation")."""
    layers: list[nn.Module] = [ExpertLinear(sizes[0], sizes[1])]
    for size_in, size_out in zip(sizes[1:], sizes[2:], strict=False):
        layers += [nn.SiLU(), ExpertLinear(size_in, size_out)]
    return nn.Sequential(*layers)


class ActionEmbedding(nn.Module):
    """Action token = L₃(SiLU(L₂([temb(τ); L₁ x]))), the time first (paper Table 12, "Action Encoder")."""

    def __init__(self, action_dim: int, hidden_size: int, max_period: float):
        super().__init__()
        self.max_period = max_period
        self.linear_1 = ExpertLinear(action_dim, hidden_size)
        self.linear_2 = ExpertLinear(2 * hidden_size, hidden_size)
        self.linear_3 = ExpertLinear(hidden_size, hidden_size)

    def embed_time(self, flow_time: torch.Tensor) -> torch.Tensor:
        """temb(τ): (batch,) → (batch, hidden_size)."""
        weight = self.linear_1.weight
        return time_embedding(flow_time, len(weight), self.max_period).to(weight.dtype)

    def forward(self, noisy_actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """(batch, horizon, action_dim), temb(τ) (batch, hidden_size) → (batch, horizon, hidden_size)."""
        actions = self.linear_1(noisy_actions.to(self.linear_1.weight.dtype))
        time = time.unsqueeze(1).expand_as(actions)
        return self.linear_3(nn.functional.silu(self.linear_2(torch.cat([time, actions], dim=-1))))


def block_causal(visual: int, condition: int, horizon: int, device: torch.device) -> torch.Tensor:
    """M: who may attend to whom, (seq, seq) boolean (paper section 3.1, "block-wise causal attention").

    Visual tokens see visual tokens; latent action and state see those and themselves; actions see everything.
    """
    position = torch.arange(visual + condition + horizon, device=device)
    block = (position >= visual).int() + (position >= visual + condition).int()  # 0 visual, 1 condition, 2 actions
    return block.unsqueeze(1) >= block.unsqueeze(0)


class ActionExpert(nn.Module):
    """V_θ(A^τ, q): the velocity of a noisy action chunk given images, latent action and state (paper appendix E.2)."""

    def __init__(self, config: InstructVLAConfig):
        super().__init__()
        expert, text_size = config.action_expert_config, config.text_config.hidden_size
        size = expert.hidden_size
        self.horizon, self.action_dim, self.flow = config.horizon, config.action_dim, config.flow_config
        self.attention = expert.attention
        self.num_condition_tokens = config.num_action_queries + (config.state_dim is not None)
        self.vision = self.visual_projector = None
        if config.action_vision_config is not None:
            self.vision = FiLMVisionTransformer(config.action_vision_config, condition_size=text_size)
            self.visual_projector = silu_mlp(config.action_vision_config.embed_dim, size, size)
        self.latent_projector = silu_mlp(text_size, size, size)
        self.state_projector = None if config.state_dim is None else silu_mlp(config.state_dim, size, size)
        self.action_embedding = ActionEmbedding(config.action_dim, size, config.flow_config.time_max_period)
        self.transformer = ExpertTransformer(
            LlamaConfig(
                vocab_size=1,
                bos_token_id=None,
                eos_token_id=None,
                hidden_size=size,
                intermediate_size=expert.intermediate_size,
                num_hidden_layers=expert.num_hidden_layers,
                num_attention_heads=expert.num_attention_heads,
                num_key_value_heads=expert.num_attention_heads,
                rms_norm_eps=expert.rms_norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": expert.rope_theta},
                attention_dropout=expert.attention_dropout,
                attn_implementation="eager" if config._attn_implementation == "eager" else "sdpa",
            )
        )
        self.action_head = silu_mlp(
            size * config.horizon, 4 * size, 2 * size, size // 2, config.horizon * config.action_dim
        )

    def loss(
        self,
        latent_action: torch.Tensor,
        pixel_values: torch.Tensor | None,
        actions: torch.Tensor,
        state: torch.Tensor | None = None,
        action_mask: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        flow_time: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Flow-matching loss L_FM (Eq. 1).

        Args:
            latent_action: C, (batch, num_action_queries, text_hidden_size).
            pixel_values: (batch, cameras, 3, image_size, image_size), None for an expert without a vision tower.
            actions: normalised action chunk A, (batch, horizon, action_dim).
            state: normalised, (batch, state_dim), for a model with state.
            action_mask: (batch, horizon), False where the chunk is padding, which may be NaN.
            noise, flow_time: ε (batch · training_draws, horizon, action_dim) and τ (batch · training_draws,), those of
                one chunk one after the other; drawn when not given.
        """
        draws = self.flow.training_draws
        actions = actions.float()
        if action_mask is not None:
            actions = actions.where(action_mask.bool().unsqueeze(-1) | actions.isfinite(), 0)
            action_mask = action_mask.repeat_interleave(draws, dim=0)
        actions = actions.repeat_interleave(draws, dim=0)
        noise = torch.randn_like(actions) if noise is None else noise.float()
        if flow_time is None:
            flow_time = sample_flow_time(len(actions), self.flow, actions.device)
        noisy_actions = interpolate(actions, noise, flow_time, self.flow.sigma_min)
        prefix = self.embed_prefix(latent_action, pixel_values, state)
        mask, rotary = self.attention_mask(prefix), self.rotary(prefix)
        time = self.action_embedding.embed_time(flow_time)
        velocity = self.velocity(noisy_actions, time, rotary, mask, **self.prefix_for_draws(prefix, rotary, mask))
        return flow_matching_loss(velocity, target_velocity(actions, noise, self.flow.sigma_min), action_mask)

    def prefix_for_draws(
        self, prefix: torch.Tensor, rotary: Rotary, mask: torch.Tensor
    ) -> dict[str, torch.Tensor | PrefixCache]:
        """The prefix for `training_draws` noisy chunks each: its keys and values, computed once, where they can be."""
        draws = self.flow.training_draws
        checkpointing = self.training and self.transformer.layers[0].gradient_checkpointing
        if draws == 1 or self.attention != "block_causal" or checkpointing:  # recomputed layers fill no cache
            return {"prefix": prefix.repeat_interleave(draws, dim=0)}
        cache = self.encode_prefix(prefix, rotary, mask)
        cache.repeat_interleave(draws)
        return {"cache": cache}

    def sample(
        self,
        latent_action: torch.Tensor,
        pixel_values: torch.Tensor | None,
        noise: torch.Tensor,
        state: torch.Tensor | None = None,
        steps: FlowSteps | None = None,
        guidance: ChunkGuidance | None = None,
    ) -> torch.Tensor:
        """Integrate the flow from `noise` to a normalised action chunk, (batch, horizon, action_dim) float32 (Eq. 2);
        with `guidance`, one that goes on where the last one leads (real-time chunking).

        With block-causal attention the prefix does not depend on the actions: its keys and values are computed once.

        Args:
            steps: from `flow_steps`, to be reused; default: the configuration's.
        """
        return self.decode(self.condition(latent_action, pixel_values, state), noise, steps, guidance)

    def condition(
        self, latent_action: torch.Tensor, pixel_values: torch.Tensor | None, state: torch.Tensor | None
    ) -> dict[str, Any]:
        """What `velocity` takes beside the noisy actions and their time, the same in every step."""
        prefix = self.embed_prefix(latent_action, pixel_values, state)
        mask, rotary = self.attention_mask(prefix), self.rotary(prefix)
        if self.attention != "block_causal":
            return {"rotary": rotary, "mask": mask, "prefix": prefix}
        # actions see everything, so they need no mask
        return {"rotary": rotary, "cache": self.encode_prefix(prefix, rotary, mask, read=False)}

    def decode(
        self,
        condition: dict[str, Any],
        noise: torch.Tensor,
        steps: FlowSteps | None = None,
        guidance: ChunkGuidance | None = None,
        velocity: Callable[..., torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """`sample` from its condition on; `velocity` stands for the expert's own, e.g. compiled."""
        steps, compute = steps or self.flow_steps(), velocity or self.velocity

        def at_step(x: torch.Tensor, step: int) -> torch.Tensor:
            return compute(x, steps.embedded[step].expand(len(x), -1), **condition)

        if guidance is not None:
            at_step = guided(at_step, guidance, steps.times.tolist())
        return integrate(at_step, noise.to(steps.times.device), steps)

    def flow_steps(self, num_steps: int | None = None) -> FlowSteps:
        """The steps of `sample`; default: as many as configured."""
        device = self.action_embedding.linear_1.weight.device
        steps = flow_steps(self.flow, num_steps or self.flow.num_inference_steps, device)
        return replace(steps, embedded=self.action_embedding.embed_time(steps.times))

    def embed_prefix(
        self, latent_action: torch.Tensor, pixel_values: torch.Tensor | None, state: torch.Tensor | None
    ) -> torch.Tensor:
        """[visual tokens, if there is a tower, latent action, state]: (batch, prefix, hidden_size)."""
        weight = self.action_embedding.linear_1.weight
        latent_action = latent_action.to(weight.device, weight.dtype)
        tokens = [self.latent_projector(latent_action)]
        if self.vision is not None:
            tokens.insert(0, self.look(pixel_values.to(weight.device, weight.dtype), latent_action))
        if self.state_projector is not None:
            tokens.append(self.state_projector(state.to(weight.device, weight.dtype)).unsqueeze(1))
        return torch.cat(tokens, dim=1)

    def look(self, pixel_values: torch.Tensor, latent_action: torch.Tensor) -> torch.Tensor:
        """Visual tokens, (batch, patches · cameras, hidden_size); cameras interleave patch by patch."""
        batch, cameras = pixel_values.shape[:2]
        features = self.vision(pixel_values.flatten(0, 1), latent_action.repeat_interleave(cameras, dim=0))
        visual = self.visual_projector(features).unflatten(0, (batch, cameras))  # (batch, cameras, patches, hidden)
        return visual.transpose(1, 2).flatten(1, 2)

    def velocity(
        self,
        noisy_actions: torch.Tensor,
        time: torch.Tensor,
        rotary: Rotary,
        mask: torch.Tensor | None = None,
        prefix: torch.Tensor | None = None,
        cache: PrefixCache | None = None,
    ) -> torch.Tensor:
        """V_θ(A^τ, q): (batch, horizon, action_dim), from the prefix itself or from its cached keys and values.

        Args:
            noisy_actions: A^τ, (batch, horizon, action_dim).
            time: temb(τ), (batch, hidden_size).
            rotary, mask: of the whole sequence, from `rotary` and `attention_mask`; no mask blocks nothing.
        """
        tokens = self.action_embedding(noisy_actions, time)
        if cache is None:
            tokens = torch.cat([prefix, tokens], dim=1)
        length = tokens.shape[1]
        mask = None if mask is None else mask[..., -length:, :]
        rotary = tuple(part[:, -length:] for part in rotary)
        hidden = self.transformer(tokens, mask, rotary, cache)[:, -self.horizon :]
        return self.action_head(hidden.flatten(1)).unflatten(1, (self.horizon, self.action_dim))

    def encode_prefix(self, prefix: torch.Tensor, rotary: Rotary, mask: torch.Tensor, read: bool = True) -> PrefixCache:
        """Keys and values of the prefix in every layer, frozen; `read` as for the transformer."""
        cache = PrefixCache()
        rotary = tuple(part[:, : -self.horizon] for part in rotary)
        self.transformer(prefix, mask[..., : -self.horizon, : -self.horizon], rotary, cache, read)
        cache.frozen = True
        return cache

    def rotary(self, prefix: torch.Tensor) -> Rotary:
        """cos and sin of the whole sequence, each (1, seq, head_dim)."""
        positions = torch.arange(prefix.shape[1] + self.horizon, device=prefix.device).unsqueeze(0)
        return self.transformer.rotary_emb(prefix, positions)

    def attention_mask(self, prefix: torch.Tensor) -> torch.Tensor:
        """What is added to the attention logits of the whole sequence, (1, 1, seq, seq) float.

        "block_causal" blocks with the dtype's least number; "additive_bias" adds 1.0 · M, as the released weights were
        trained, and blocks nothing.
        """
        num_visual_tokens = prefix.shape[1] - self.num_condition_tokens
        allowed = block_causal(num_visual_tokens, self.num_condition_tokens, self.horizon, prefix.device)[None, None]
        if self.attention == "additive_bias":
            return allowed.to(prefix.dtype)
        blocked = torch.zeros(allowed.shape, dtype=prefix.dtype, device=prefix.device)
        return blocked.masked_fill_(~allowed, torch.finfo(prefix.dtype).min)
