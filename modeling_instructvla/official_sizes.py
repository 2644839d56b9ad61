"""The configuration of a published checkpoint, read off its tensors, its run and its base VLM."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import require
from instructvla.eagle2_vlm import Eagle2
from instructvla.official_names import WeightAccount
from instructvla.official_run import OfficialRun
from instructvla.peft_files import PeftAdapter

RELEASED_FEATURE_LAYER = 2  # the authors' code takes the first of the last depth - 2 blocks
RELEASED_CROP_PCT = 0.875
LIBERO_CAMERAS = ["primary", "wrist"]
STATE = "action_expert.state_projector.0.weight"
MOST_QUERIES = 256
HEAD_SIZE = 64  # of every attention head in the published models; no tensor tells it
Shapes = Mapping[str, tuple[int, ...]]


class SourceShapes(dict[str, tuple[int, ...]]):
    """Our name → shape of its (first) source tensor."""

    def __init__(self, account: WeightAccount, shapes: Shapes):
        super().__init__({name: shapes[sources[0]] for name, sources in account.used.items()})

    def dims(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of a tensor that has `count` dimensions, none of them empty (else ValueError)."""
        if name not in self:
            raise ValueError(f"The checkpoint has no tensor for {name}; it is not a whole InstructVLA checkpoint.")
        if len(self[name]) != count or 0 in self[name]:
            raise ValueError(f"The tensor for {name} is {self[name]}, but it must have {count} dimensions, none empty.")
        return self[name]


def count(names: Mapping[str, Any], pattern: str) -> int:
    """How many different numbers stand at the group of `pattern` in the names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def released_fields(
    account: WeightAccount, shapes: Shapes, eagle2: Eagle2, told_queries: Any = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `InstructVLAConfig` for a published checkpoint.

    Args:
        account: of the checkpoint's tensors.
        shapes: official name → shape, of every tensor.
        eagle2: its base VLM.
        told_queries: how many action queries the run or the caller says that there are.

    Returns:
        All fields, and those of them, by public name, that no tensor tells although they go with its size: they follow
        the published recipe, or are None where the width does not allow it.

    Raises:
        ValueError: if the base VLM has other sizes, or a tensor that tells a size is absent or of another rank.
    """
    ours = SourceShapes(account, shapes)
    require_same_vlm(ours, eagle2)
    rows = ours.dims("language_model.embed_tokens.weight", 2)[0]
    queries = count_queries(rows, len(eagle2.tokenizer), told_queries)
    expert, expert_assumed = expert_fields(ours)
    vision, vision_assumed = action_vision_fields(ours, shapes)
    adapters, adapters_assumed = adapter_fields(account, ours)
    size = expert["hidden_size"]
    action_dim = ours.dims("action_expert.action_embedding.linear_1.weight", 2)[1]
    fields = eagle2.config_fields(queries) | {
        "action_vision_config": vision,
        "action_expert_config": expert,
        "adapter_config": adapters,
        "horizon": ours.dims("action_expert.action_head.0.weight", 2)[1] // size,
        "action_dim": action_dim,
        "state_dim": ours.dims(STATE, 2)[1] if STATE in ours else None,
    }
    fields["text_config"]["vocab_size"] = rows
    return fields, expert_assumed | vision_assumed | adapters_assumed


def count_queries(rows: int, entries: int, told: Any) -> int:
    """Action queries of a vocabulary of `rows`, whose tokenizer has `entries` without them; further rows are padding.

    Args:
        told: their number as the run or the caller gives it, or None.

    Raises:
        ValueError: if the vocabulary has no room for them, or nobody told and the rest is no likely number.
    """
    queries = rows - entries if told is None else int(told) if str(told).isdecimal() else 0
    if queries < 1 or entries + queries > rows:
        raise ValueError(
            f"The checkpoint's vocabulary has {rows} rows and the base VLM's tokenizer {entries} entries, which leaves "
            f"no room for {told or 'any'} action queries; give the base VLM it was trained from, or "
            "--set num_action_queries=N."
        )
    if told is None and queries > MOST_QUERIES:
        raise ValueError(
            f"The checkpoint's vocabulary has {queries} rows beyond the tokenizer's {entries}, and no config.json says "
            "how many of them are action queries; give --set num_action_queries=N."
        )
    return queries


def require_same_vlm(ours: SourceShapes, eagle2: Eagle2) -> None:
    """Refuse a base VLM whose sizes are not those of the checkpoint (ValueError naming all of them)."""
    vision, text = eagle2.vision_config, eagle2.text_config
    grid = vision["image_size"] // vision["patch_size"]
    head = text["hidden_size"] // text["num_attention_heads"]
    layer, encoder = "language_model.layers.0", "vision_model.encoder.layers"
    expected = {
        "llm_config.hidden_size": (text["hidden_size"], ours.dims("language_model.embed_tokens.weight", 2)[1]),
        "llm_config.num_hidden_layers": (text["num_hidden_layers"], count(ours, r"language_model\.layers\.(\d+)\.")),
        "llm_config.intermediate_size": (text["intermediate_size"], ours.dims(f"{layer}.mlp.gate_proj.weight", 2)[0]),
        "llm_config.num_key_value_heads": (
            text["num_key_value_heads"],
            ours.dims(f"{layer}.self_attn.k_proj.weight", 2)[0] // head,
        ),
        "vision_config.hidden_size": (vision["hidden_size"], ours.dims("vision_model.post_layernorm.weight", 1)[0]),
        "vision_config.intermediate_size": (
            vision["intermediate_size"],
            ours.dims(f"{encoder}.0.mlp.fc1.weight", 2)[0],
        ),
        "vision_config.num_hidden_layers": (
            vision["num_hidden_layers"],
            count(ours, r"vision_model\.encoder\.layers\.(\d+)\."),
        ),
        "vision_config.patch_size": (
            vision["patch_size"],
            ours.dims("vision_model.embeddings.patch_embedding.weight", 4)[-1],
        ),
        "vision_config image patches": (grid**2, ours.dims("vision_model.embeddings.position_embedding.weight", 2)[0]),
    }
    wrong = [f"{name} {base} (checkpoint: {own})" for name, (base, own) in expected.items() if base != own]
    if wrong:
        raise ValueError(
            f"The base VLM is not the one that the checkpoint was trained from: it has {', '.join(wrong)}."
        )


def expert_fields(ours: SourceShapes) -> tuple[dict[str, Any], dict[str, Any]]:
    size = ours.dims("action_expert.transformer.norm.weight", 1)[0]
    fields = {
        "hidden_size": size,
        "intermediate_size": ours.dims("action_expert.transformer.layers.0.mlp.gate_proj.weight", 2)[0],
        "num_hidden_layers": count(ours, r"action_expert\.transformer\.layers\.(\d+)\."),
        "attention": "additive_bias",
    }
    return with_heads(fields, "action_expert_config", "num_attention_heads", size)


def action_vision_fields(ours: SourceShapes, shapes: Shapes) -> tuple[dict[str, Any], dict[str, Any]]:
    size = ours.dims("action_expert.vision.cls_token", 3)[-1]
    patch = ours.dims("action_expert.vision.patch_embed.proj.weight", 4)[-1]
    fields = {
        "embed_dim": size,
        "depth": count(shapes, r".*film_vision_model\.vision_model\.blocks\.(\d+)\."),
        "mlp_ratio": ours.dims("action_expert.vision.blocks.0.mlp.fc1.weight", 2)[0] / size,
        "patch_size": patch,
        "image_size": round(ours.dims("action_expert.vision.pos_embed", 3)[1] ** 0.5) * patch,
        "num_register_tokens": ours.dims("action_expert.vision.reg_token", 3)[1],
        "feature_layer": RELEASED_FEATURE_LAYER,
    }
    return with_heads(fields, "action_vision_config", "num_heads", size)


def with_heads(fields: dict[str, Any], section: str, name: str, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields with the recipe's number of heads; left out where the width doesn't allow it."""
    if size % HEAD_SIZE:
        return fields, {f"{section}.{name}": None}
    return fields | {name: size // HEAD_SIZE}, {f"{section}.{name}": size // HEAD_SIZE}


def adapter_fields(account: WeightAccount, ours: SourceShapes) -> tuple[dict[str, Any], dict[str, Any]]:
    matrices = {name: shape for name, shape in ours.items() if name.endswith(".lora_A")}
    if not matrices:
        raise ValueError(
            "The checkpoint has no LoRA tensors: the authors' unload_lora.py moved them to a PEFT folder, without "
            "which the weights don't act as trained. Give it with --adapter FOLDER."
        )
    first = next(iter(matrices))
    rank = ours.dims(first, 2)[0]
    layers = [name for name in ours if re.fullmatch(r"language_model\.scale_head\.\d+\.weight", name)]
    fields = {
        "rank": rank,
        "alpha": 2 * rank,
        "experts": len(account.used[first]),
        "target_modules": sorted({name.split(".")[-2] for name in matrices}),
    }
    if layers:
        fields["scale_head_depth"] = len(layers)
        fields["scale_head_size"] = ours.dims(layers[0], 2)[0]
    return fields, {"adapter_config.alpha": 2 * rank}


def released_config(
    account: WeightAccount,
    shapes: Shapes,
    eagle2: Eagle2,
    run: OfficialRun,
    overrides: Mapping[str, Any],
    adapter: PeftAdapter | None = None,
) -> tuple[InstructVLAConfig, dict[str, Any]]:
    """The configuration, and those of its fields that the recipe tells, as neither a tensor nor the caller does.

    Args:
        account: of all tensors.
        shapes: official name → shape.
        eagle2: the base VLM.
        run: its settings tell the action queries; the released LIBERO models see a wrist camera, too.
        overrides: nested, by section.
        adapter: PEFT folder of an unloaded checkpoint, which tells its α.

    Raises:
        ValueError: as `released_fields`; or a field that has to be given, or contradicts the tensors.
    """
    told = overrides.get("num_action_queries", run.settings.get("num_of_meta_query"))
    fields, assumed = released_fields(account, shapes, eagle2, told)
    depth = fields["action_vision_config"]["depth"]
    if adapter is not None:
        rank, dropout = fields["adapter_config"]["rank"], adapter.config.lora_dropout
        alpha = adapter.scaling * rank
        fields["adapter_config"] |= {"alpha": alpha, "dropout": dropout}
        told_alpha = (overrides.get("adapter_config") or {}).get("alpha", alpha)
        require(told_alpha == alpha, "adapter_config.alpha", told_alpha, f"{alpha:g}, as the adapter folder says")
        del assumed["adapter_config.alpha"]
    assumed["cameras"] = fields["cameras"] = LIBERO_CAMERAS if is_libero(run.statistics) else ["primary"]
    given = {f"{section}.{name}" for section, parts in overrides.items() if isinstance(parts, dict) for name in parts}
    assumed = {name: value for name, value in assumed.items() if name not in given | overrides.keys()}
    untold = [name for name, value in assumed.items() if value is None]
    if untold:
        raise ValueError(
            f"No tensor tells {', '.join(untold)}, and the widths are not those of the published models; give "
            + " ".join(f"--set {name}=…" for name in untold)
        )
    config = InstructVLAConfig.from_dict(fields, **overrides)
    own = config.action_vision_config.depth
    require(own == depth, "action_vision_config.depth", own, f"{depth}, the number of blocks in the checkpoint")
    return config, assumed


def is_libero(statistics: Iterable[str]) -> bool:
    return all(key.startswith("libero") for key in statistics)


def require_same_run(settings: Mapping[str, Any], config) -> None:
    """Refuse a checkpoint that its run's config.json describes otherwise (ValueError)."""
    own = {
        "stage": f"stage{config.adapter_config.experts}",
        "num_of_meta_query": config.num_action_queries,
        "future_action_window_size": config.horizon - 1,
        "action_dim": config.action_dim,
    }
    wrong = [
        f"{name} {settings[name]} (tensors: {value})"
        for name, value in own.items()
        if settings.get(name) is not None and str(settings[name]) != str(value)
    ]
    if wrong:
        raise ValueError(f"The run's config.json is of another checkpoint: it has {', '.join(wrong)}.")
