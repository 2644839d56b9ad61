"""FLOPs of one action, stage by stage, from the configuration alone: the least that these numbers can be had for.

Nothing is computed twice: one image pass, one pass over the prompt, one per word, one for the queries; keys and values
of the action expert's prefix once. Of the top layer, only tokens that are read count. A multiply-add counts as two;
only matrix products count, attention in full whatever its mask.
"""

from collections.abc import Sequence

from instructvla.configuration_instructvla import InstructVLAConfig


def mlp(tokens: int, sizes: Sequence[int]) -> int:
    """Linear layers one after the other."""
    return sum(2 * tokens * size_in * size_out for size_in, size_out in zip(sizes, sizes[1:], strict=False))


def attention(queries: int, keys: int, width: int) -> int:
    """Scores, and their sum over the values; `width` is heads · head size."""
    return 2 * 2 * queries * keys * width


def image_flops(config: InstructVLAConfig) -> int:
    """SigLIP and the projector, of one image."""
    vision, text = config.vision_config, config.text_config.hidden_size
    width, tokens = vision.hidden_size, config.image_grid**2
    layer = mlp(tokens, (width, 3 * width)) + attention(tokens, tokens, width)
    layer += mlp(tokens, (width, width, vision.intermediate_size, width))
    stem = mlp(tokens, (vision.num_channels * vision.patch_size**2, width))
    folded = tokens // config.num_image_tokens * width
    return stem + vision.num_hidden_layers * layer + mlp(config.num_image_tokens, (folded, text, text))


def decoder_flops(config: InstructVLAConfig, tokens: int, keys: int, last: int) -> int:
    """One pass of the language model, with the base pass and the scale head of a mixture, without the vocabulary.

    Args:
        tokens: that are new.
        keys: that each of them is compared with, its own included.
        last: of them, whose hidden states are read.
    """
    text, adapters = config.text_config, config.adapter_config
    layers, mixture = text.num_hidden_layers, adapters.experts > 1
    adapted = (layers - 1) * layer_flops(config, tokens, tokens, keys, adapters.experts)
    adapted += layer_flops(config, tokens, last, keys, adapters.experts)
    if not mixture:
        return adapted
    head = [text.hidden_size, *[adapters.scale_head_size] * (adapters.scale_head_depth - 1), adapters.experts]
    base = (layers - 1) * layer_flops(config, tokens, tokens, keys, 0) + layer_flops(config, tokens, tokens, keys, 0)
    return base + mlp(tokens, head) + adapted


def layer_flops(config: InstructVLAConfig, tokens: int, read: int, keys: int, experts: int) -> int:
    """Keys and values of all tokens, and the rest of the layer for those that are read."""
    text, adapters = config.text_config, config.adapter_config
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    size, inner = text.hidden_size, text.intermediate_size
    wide, narrow = text.num_attention_heads * head_size, text.num_key_value_heads * head_size
    linears = {
        "q_proj": (read, size, wide),
        "k_proj": (tokens, size, narrow),
        "v_proj": (tokens, size, narrow),
        "o_proj": (read, wide, size),
        "gate_proj": (read, size, inner),
        "up_proj": (read, size, inner),
        "down_proj": (read, inner, size),
    }
    total = attention(read, keys, wide)
    for name, (rows, size_in, size_out) in linears.items():
        total += mlp(rows, (size_in, size_out))
        if name in adapters.target_modules:
            total += mlp(rows, (size_in, experts * adapters.rank, size_out))
    return total


def word_flops(config: InstructVLAConfig, keys: int) -> int:
    """One thinking step with its choice from the vocabulary."""
    return decoder_flops(config, 1, keys, 1) + mlp(1, (config.text_config.hidden_size, config.text_config.vocab_size))


def expert_flops(config: InstructVLAConfig, steps: int | None = None) -> int:
    """The action expert: tower, prefix once, and all flow steps (default: as many as configured)."""
    expert, text = config.action_expert_config, config.text_config.hidden_size
    size, horizon = expert.hidden_size, config.horizon
    prefix, total = config.num_action_queries, mlp(config.num_action_queries, (text, size, size))
    if config.action_vision_config is not None:
        patches = len(config.cameras) * config.action_vision_config.num_patches
        total += tower_flops(config) + mlp(patches, (config.action_vision_config.embed_dim, size, size))
        prefix += patches
    if config.state_dim is not None:
        total += mlp(1, (config.state_dim, size, size))
        prefix += 1
    layers, everything = expert.num_hidden_layers, (prefix, horizon)
    each_step = layers * expert_layer(config, horizon, horizon, sum(everything))
    each_step += mlp(horizon, (config.action_dim, size)) + mlp(horizon, (2 * size, size, size))
    each_step += mlp(1, (size * horizon, 4 * size, 2 * size, size // 2, horizon * config.action_dim))
    steps = config.flow_config.num_inference_steps if steps is None else steps
    if expert.attention != "block_causal":  # the prefix sees the actions, so it is new in each step
        return total + steps * (each_step + layers * expert_layer(config, prefix, prefix, sum(everything)))
    below = (layers - 1) * expert_layer(config, prefix, prefix, prefix) + expert_layer(config, prefix, 0, prefix)
    return total + below + steps * each_step


def expert_layer(config: InstructVLAConfig, tokens: int, read: int, keys: int) -> int:
    """Keys and values of all tokens, and the rest of the layer for those that are read."""
    size, inner = config.action_expert_config.hidden_size, config.action_expert_config.intermediate_size
    rest = mlp(read, (size, size)) + mlp(read, (size, size)) + mlp(read, (size, 2 * inner)) + mlp(read, (inner, size))
    return mlp(tokens, (size, 2 * size)) + rest + attention(read, keys, size)


def tower_flops(config: InstructVLAConfig) -> int:
    """FiLM-DINOv2, of all cameras."""
    vision, condition = config.action_vision_config, config.text_config.hidden_size
    width, tokens = vision.embed_dim, vision.num_patches + 1 + vision.num_register_tokens
    block = mlp(tokens, (width, 3 * width)) + attention(tokens, tokens, width) + mlp(tokens, (width, width))
    block += mlp(tokens, (width, int(vision.mlp_ratio * width), width))
    block += mlp(1, (condition, 2 * width)) if vision.film else 0
    stem = mlp(vision.num_patches, (3 * vision.patch_size**2, width))
    return len(config.cameras) * (stem + (vision.feature_layer + 1) * block)


def action_flops(config: InstructVLAConfig, prompt: int, words: int | None = None) -> dict[str, int]:
    """FLOPs of one action by stage.

    Args:
        prompt: tokens, with those of the image.
        words: tokens of the response; None acts without thinking.

    Raises:
        ValueError: a model with convolutional stems, whose products are not counted.
    """
    if config.stem_channels is not None:
        raise ValueError("Convolutional stems are not counted; their model has stem_channels in its configuration.")
    queries, stages = config.num_action_queries, {"images": image_flops(config)}
    if words is None:
        stages["prompt and queries"] = decoder_flops(config, prompt + queries, prompt + queries, queries)
    else:
        stages["prompt"] = decoder_flops(config, prompt, prompt, 1)
        vocabulary = mlp(1, (config.text_config.hidden_size, config.text_config.vocab_size))
        stages["words"] = vocabulary + sum(word_flops(config, prompt + word + 1) for word in range(words))
        turn = queries + 1  # a space stands before the queries
        stages["queries"] = decoder_flops(config, turn, prompt + words + turn, queries)
    return stages | {"action expert": expert_flops(config)}
