"""FLOPs of one training step, part by part, from the configuration alone: what utilisation is measured against.

A multiply-add counts as two. Only matrix products count, attention in full whatever its mask, and the backward pass
holds what gradients need: no weight gradients of frozen tensors, no input gradients where nothing below is trained.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch

from instructvla.configuration_instructvla import InstructVLAConfig


@dataclass(frozen=True)
class StepShape:
    """Sizes of one batch.

    Args:
        rows, tokens: of input_ids, padding included.
        images: that the VLM's vision tower sees.
        targets: labelled tokens.
        acts: whether the rows have action chunks.
    """

    rows: int
    tokens: int
    images: int
    targets: int
    acts: bool

    @classmethod
    def of(cls, batch: Mapping[str, torch.Tensor]) -> "StepShape":
        """Sizes of a batch as `ActionCollator` makes it; without pictures the tower sees a blank one."""
        rows, tokens = batch["input_ids"].shape
        images = len(batch["pixel_values"]) if "pixel_values" in batch else 1
        targets = int((batch["labels"][:, 1:] != -100).sum()) if "labels" in batch else 0
        return cls(rows, tokens, images, targets, "actions" in batch)


@dataclass
class Flops:
    """FLOPs of one part; `recompute` is what gradient checkpointing would add, each layer counted whole."""

    forward: int = 0
    backward: int = 0
    recompute: int = 0

    @property
    def model(self) -> int:
        """What the step needs, however it is computed: recomputing is no progress."""
        return self.forward + self.backward


@dataclass
class Tally:
    """Follows which activations need a gradient, as autograd does: each method returns that of its result."""

    parts: dict[str, Flops] = field(default_factory=dict)

    def add(self, part: str, product: int, forward: int, backward: int) -> None:
        flops = self.parts.setdefault(part, Flops())
        flops.forward += forward * product
        flops.backward += backward * product

    def linear(self, part: str, tokens: int, size_in: int, size_out: int, x_grad: bool, trained: bool) -> bool:
        self.add(part, 2 * tokens * size_in * size_out, 1, x_grad + trained)
        return x_grad or trained

    def mlp(self, part: str, tokens: int, sizes: Collection[int], x_grad: bool, trained: bool) -> bool:
        sizes = list(sizes)
        for size_in, size_out in zip(sizes, sizes[1:], strict=False):
            x_grad = self.linear(part, tokens, size_in, size_out, x_grad, trained)
        return x_grad

    def attention(
        self, part: str, rows: int, tokens: int, width: int, q_grad: bool, k_grad: bool, v_grad: bool
    ) -> bool:
        """Scores and their sum over the values; `width` is heads · head size."""
        scores_grad = q_grad or k_grad
        self.add(part, 2 * rows * tokens**2 * width, 2, q_grad + k_grad + v_grad + scores_grad)
        return scores_grad or v_grad

    def layers(self, count: int, x_grad: bool, layer: Callable[[bool], bool]) -> bool:
        """A stack whose layers gradient checkpointing would each run again before their backward pass."""
        for _ in range(count):
            before = {part: flops.forward for part, flops in self.parts.items()}
            x_grad = layer(x_grad)
            for part, flops in self.parts.items() if x_grad else ():
                flops.recompute += flops.forward - before.get(part, 0)
        return x_grad


def training_flops(config: InstructVLAConfig, train: Collection[str], shape: StepShape) -> dict[str, Flops]:
    """FLOPs of one forward and backward pass.

    Args:
        train: parts that are trained, of `trainable_parts.PARTS`.
        shape: of the batch.

    Returns:
        Part → FLOPs, of the parts that run: "SigLIP", "projector", "base pass", "adapted pass" (without its LoRA),
        "LoRA", "scale head", "lm_head", "DINO", "action expert".

    Raises:
        ValueError: a model with stems or several draws per chunk.
    """
    if config.stem_channels is not None or config.flow_config.training_draws > 1:
        raise ValueError(
            "Convolutional stems and several draws per chunk are not counted; leave stem_channels and "
            "flow_config.training_draws at their defaults."
        )
    tally = Tally()
    embeds_grad = bool({"query_rows", "embeddings"} & set(train))
    if shape.images:
        embeds_grad |= _vision(tally, config, train, shape.images)
    hidden_grad = _language(tally, config, train, shape, embeds_grad)
    if shape.targets:
        _lm_head(tally, config, train, shape.targets, hidden_grad)
    if shape.acts:
        _action_expert(tally, config, train, shape.rows, hidden_grad)
    return tally.parts


def _vision(tally: Tally, config: InstructVLAConfig, train: Collection[str], images: int) -> bool:
    vision, trained = config.vision_config, "vision_model" in train
    width, tokens = vision.hidden_size, config.image_grid**2
    total = images * tokens

    def layer(x_grad: bool) -> bool:
        qkv = tally.linear("SigLIP", total, width, 3 * width, x_grad, trained)
        attended = tally.attention("SigLIP", images, tokens, width, qkv, qkv, qkv)
        return tally.mlp("SigLIP", total, (width, width, vision.intermediate_size, width), attended, trained)

    patch = vision.num_channels * vision.patch_size**2
    x_grad = tally.linear("SigLIP", total, patch, width, False, trained)
    x_grad = tally.layers(vision.num_hidden_layers, x_grad, layer)
    folds, text = total // config.num_image_tokens // images, config.text_config.hidden_size
    sizes = (folds * width, text, text)
    return tally.mlp("projector", images * config.num_image_tokens, sizes, x_grad, "projector" in train)


def _language(
    tally: Tally, config: InstructVLAConfig, train: Collection[str], shape: StepShape, embeds_grad: bool
) -> bool:
    """Both passes; whether the final hidden states need a gradient."""
    text, adapters = config.text_config, config.adapter_config
    layers, total = text.num_hidden_layers, shape.rows * shape.tokens
    if adapters.experts > 1:
        tally.layers(layers, False, _decoder_layer(tally, "base pass", config, shape, frozenset(), 0))
        sizes = [text.hidden_size, *[adapters.scale_head_size] * (adapters.scale_head_depth - 1), adapters.experts]
        tally.mlp("scale head", total, sizes, False, "scale_head" in train)
    adapted = _decoder_layer(tally, "adapted pass", config, shape, frozenset(train), adapters.experts)
    return tally.layers(layers, embeds_grad, adapted)


def _decoder_layer(
    tally: Tally, part: str, config: InstructVLAConfig, shape: StepShape, train: Collection[str], experts: int
) -> Callable[[bool], bool]:
    text, adapters = config.text_config, config.adapter_config
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    size, inner = text.hidden_size, text.intermediate_size
    queries, keys = text.num_attention_heads * head_size, text.num_key_value_heads * head_size
    projections = (("q", queries), ("k", keys), ("v", keys))
    total, gates_grad = shape.rows * shape.tokens, experts > 1 and "scale_head" in train

    def linear(name: str, size_in: int, size_out: int, x_grad: bool) -> bool:
        grad = tally.linear(part, total, size_in, size_out, x_grad, "language_model" in train)
        if experts and name in adapters.target_modules:
            low, trained = experts * adapters.rank, "adaptation_experts" in train
            low_grad = tally.linear("LoRA", total, size_in, low, x_grad, trained) or gates_grad
            grad |= tally.linear("LoRA", total, low, size_out, low_grad, trained)
        return grad

    def layer(x_grad: bool) -> bool:
        q, k, v = (linear(f"{name}_proj", size, width, x_grad) for name, width in projections)
        x_grad |= linear("o_proj", queries, size, tally.attention(part, shape.rows, shape.tokens, queries, q, k, v))
        gated = linear("gate_proj", size, inner, x_grad) | linear("up_proj", size, inner, x_grad)
        return x_grad | linear("down_proj", inner, size, gated)

    return layer


def _lm_head(tally: Tally, config: InstructVLAConfig, train: Collection[str], targets: int, hidden_grad: bool) -> None:
    size, vocabulary = config.text_config.hidden_size, config.text_config.vocab_size
    tally.linear("lm_head", targets, size, vocabulary, hidden_grad, "embeddings" in train)
    if "query_rows" in train:  # their weight gradient; the rows are a part of the vocabulary
        tally.add("lm_head", 2 * targets * size * config.num_action_queries, 0, 1)


def _action_expert(
    tally: Tally, config: InstructVLAConfig, train: Collection[str], rows: int, latent_grad: bool
) -> None:
    trained = "action_expert" in train
    expert, text, part = config.action_expert_config, config.text_config.hidden_size, "action expert"
    size, queries, horizon = expert.hidden_size, config.num_action_queries, config.horizon
    prefix, prefix_grad = queries, latent_grad or trained
    tally.mlp(part, rows * queries, (text, size, size), latent_grad, trained)
    if config.action_vision_config is not None:
        patches = len(config.cameras) * config.action_vision_config.num_patches
        seen = _film_vision(tally, config, "action_vision" in train, rows * len(config.cameras), latent_grad)
        tally.mlp(part, rows * patches, (config.action_vision_config.embed_dim, size, size), seen, trained)
        prefix, prefix_grad = prefix + patches, prefix_grad or seen
    if config.state_dim is not None:
        tally.mlp(part, rows, (config.state_dim, size, size), False, trained)
        prefix += 1
    noisy = tally.linear(part, rows * horizon, config.action_dim, size, False, trained)
    tally.mlp(part, rows * horizon, (2 * size, size, size), noisy, trained)
    tokens = prefix + horizon
    total = rows * tokens

    def layer(x_grad: bool) -> bool:
        qkv = tally.linear(part, total, size, 3 * size, x_grad, trained)
        attended = tally.attention(part, rows, tokens, size, qkv, qkv, qkv)
        x_grad = tally.linear(part, total, size, size, attended, trained)
        gated = tally.linear(part, total, size, 2 * expert.intermediate_size, x_grad, trained)
        return tally.linear(part, total, expert.intermediate_size, size, gated, trained)

    grad = tally.layers(expert.num_hidden_layers, prefix_grad, layer)
    head = (size * horizon, 4 * size, 2 * size, size // 2, horizon * config.action_dim)
    tally.mlp(part, rows, head, grad, trained)


def _film_vision(tally: Tally, config: InstructVLAConfig, trained: bool, images: int, latent_grad: bool) -> bool:
    vision, condition, part = config.action_vision_config, config.text_config.hidden_size, "DINO"
    width, inner = vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio)
    tokens = vision.num_patches + 1 + vision.num_register_tokens
    total = images * tokens

    def block(x_grad: bool) -> bool:
        qkv = tally.linear(part, total, width, 3 * width, x_grad, trained)
        attended = tally.attention(part, images, tokens, width, qkv, qkv, qkv)
        x_grad |= tally.linear(part, total, width, width, attended, trained)
        if vision.film:
            x_grad |= tally.linear(part, images, condition, 2 * width, latent_grad, trained)
        return x_grad | tally.mlp(part, total, (width, inner, width), x_grad, trained)

    x_grad = tally.linear(part, images * vision.num_patches, 3 * vision.patch_size**2, width, False, trained)
    return tally.layers(vision.feature_layer + 1, x_grad, block)
