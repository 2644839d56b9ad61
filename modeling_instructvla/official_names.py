"""Names of tensors in the published checkpoints, and what becomes of each: one of ours, or dropped by a named rule."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from instructvla.plain_files import listed

ADAPTERS = {"default": 0, "0": 0, "1": 1}  # stage 1 has one expert; of stage 2's, 0 is language and 1 is action

RENAMES = {
    r"vision_model\.vision_model\.": "vision_model.",
    r"mlp1\.0\.": "projector.norm.",
    r"mlp1\.1\.": "projector.linear_1.",
    r"mlp1\.3\.": "projector.linear_2.",
    r"language_model\.base_model\.internal_xlora_classifier\.layers\.": "language_model.scale_head.",
    r"language_model\.(base_model\.(lora_model\.)?model\.)?(?=lm_head\.)": "language_model.",
    r"language_model\.(base_model\.(lora_model\.)?model\.)?model\.": "language_model.",
    r"action_model\.VideoGPT\.model\.": "action_expert.transformer.",
    r"action_model\.film_vision_model\.vision_model\.": "action_expert.vision.",
    r"action_model\.visual_projector\.": "action_expert.visual_projector.",
    r"action_model\.cog_projector\.": "action_expert.latent_projector.",
    r"action_model\.state_embed\.": "action_expert.state_projector.",
    r"action_model\.action_embed\.": "action_expert.action_embedding.",
    r"action_model\.action_head\.": "action_expert.action_head.",
}
INNER_RENAMES = {
    ".base_layer.": ".",  # PEFT's wrapper of an adapted layer
    ".block.": ".",  # the authors' wrapper of a FiLM block
    ".scale.": ".film_scale.",
    ".shift.": ".film_shift.",
}
DROPS = {
    "pooling head, which Eagle2 never uses": r"vision_model\.vision_model\.head\..+",
    "rotary frequencies, which the configuration gives": r".+\.rotary_emb\.inv_freq",
    "position numbers, which the configuration gives": r".+\.position_ids",
    "final norm of DINOv2, which is not applied": r"action_model\.film_vision_model\.vision_model\.norm\..+",
    "future_queries, left over from an earlier form of the action expert": r"action_model\.future_queries(\..+)?",
}
UNREACHABLE_BLOCKS = "tensors of DINOv2 blocks after feature_layer, which reach no output"
VISION_BLOCK = re.compile(r"action_expert\.vision\.blocks\.(\d+)\.")
LORA = re.compile(r"(.+\.lora_[AB])\.(\w+)\.weight")


@dataclass
class WeightAccount:
    """Where every source tensor went.

    Args:
        used: our name → the source names it is made of; of an expert's matrices one per expert, in order.
        dropped: rule → the source names that it drops.
    """

    used: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)


def expert_axis(name: str) -> int | None:
    """The dimension along which the experts of one of our tensors stand side by side; None for any other tensor."""
    return {".lora_A": 0, ".lora_B": 1}.get(name[-7:])


def our_name(name: str) -> str | None:
    """Our name of a published tensor (`module.tensor`), with the adapter's still at its end; None if it is unknown."""
    for pattern, replacement in RENAMES.items():
        renamed, found = re.subn(f"^{pattern}", replacement, name)
        if found:
            for old, new in INNER_RENAMES.items():
                renamed = renamed.replace(old, new)
            return renamed
    return None


def account_for(names: Iterable[str], feature_layer: int | None = None) -> WeightAccount:
    """Decide about every tensor by its name, in the order given.

    Args:
        names: `module.tensor` of a published checkpoint, of Eagle2's weights, or of DINOv2's behind
            `action_model.film_vision_model.vision_model.`.
        feature_layer: index of the last DINOv2 block that is used; None keeps all.

    Raises:
        ValueError: names that are neither ours nor dropped by a rule, or two for one place.
    """
    account, unknown, experts = WeightAccount(), [], {}
    for name in names:
        rule = next((rule for rule, pattern in DROPS.items() if re.fullmatch(pattern, name)), None)
        renamed = our_name(name)
        block = VISION_BLOCK.match(renamed or "")
        if rule is None and block and feature_layer is not None and int(block[1]) > feature_layer:
            rule = UNREACHABLE_BLOCKS
        lora = LORA.fullmatch(renamed or "")
        if rule is not None:
            account.dropped.setdefault(rule, []).append(name)
        elif renamed is None or (lora and lora[2] not in ADAPTERS):
            unknown.append(name)
        elif lora:
            experts.setdefault(lora[1], {}).setdefault(ADAPTERS[lora[2]], []).append(name)
        else:
            account.used.setdefault(renamed, []).append(name)
    twice = [sources for sources in account.used.values() if len(sources) > 1]
    twice += [sources for by_expert in experts.values() for sources in by_expert.values() if len(sources) > 1]
    if twice:
        raise ValueError(f"Several tensors for one place: {', '.join(twice[0])}.")
    if unknown:
        raise ValueError(f"{len(unknown)} tensor(s) that InstructVLA doesn't know: {listed(unknown)}.")
    for name, by_expert in experts.items():
        account.used[name] = [by_expert[expert][0] for expert in sorted(by_expert)]
    return account
