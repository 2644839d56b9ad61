"""Which tensors each stage of training moves, and how many they are (paper section 3.2)."""

import re
from collections.abc import Sequence

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.processing.action_normalization import nearest
from instructvla.training.query_rows import add_query_rows

# Part → names of its parameters. Every parameter of a model belongs to exactly one part.
PARTS = {
    "action_expert": r"action_expert\.(?!vision\.).+",
    "action_vision": r"action_expert\.vision\..+",
    "adaptation_experts": r"language_model\.layers\..+\.lora_[AB]",
    "scale_head": r"language_model\.scale_head\..+",
    "query_rows": r"language_model\.(embed_tokens|lm_head)\.query_rows",
    "embeddings": r"language_model\.(embed_tokens|lm_head)\.weight",
    "language_model": r"language_model\.(?!embed_tokens\.|lm_head\.|scale_head\.)(?!.+\.lora_[AB]$).+",
    "vision_model": r"vision_model\..+",
    "projector": r"projector\..+",
}
STAGE_0 = ("embeddings", "language_model", "vision_model", "projector", "action_vision")
STAGE_1 = ("action_expert", "action_vision", "adaptation_experts", "query_rows")
STAGE_2 = ("adaptation_experts", "scale_head")
STAGES = {0: STAGE_0, 1: STAGE_1, 2: STAGE_2}


def stage_parts(stage: int, model: InstructVLAForConditionalGeneration) -> tuple[str, ...]:
    """What a stage trains of a model: an action expert may have no vision tower."""
    has_vision = model.action_expert.vision is not None
    return tuple(part for part in STAGES[stage] if part != "action_vision" or has_vision)


def check_parts(parts: Sequence[str]) -> None:
    """
    Raises:
        ValueError: an unknown part, no part, or "query_rows" beside "embeddings", which hold them.
    """
    if not parts:
        raise ValueError(f"train is empty, so nothing would be trained; choose from {', '.join(PARTS)}.")
    for part in parts:
        if part not in PARTS:
            raise ValueError(
                f"train names {part!r}, which is no part of the model; choose from {', '.join(PARTS)}. The nearest is "
                f"{nearest(part, PARTS)!r}."
            )
    if {"query_rows", "embeddings"} <= set(parts):
        raise ValueError("train names both query_rows and embeddings, but the embeddings hold the query rows.")


def train_only(model: InstructVLAForConditionalGeneration, parts: Sequence[str]) -> None:
    """Freeze everything but `parts`; "query_rows" gives both embeddings such rows (`add_query_rows`).

    Raises:
        ValueError: as `check_parts`, or a part that this model lacks.
    """
    check_parts(parts)
    if "query_rows" in parts:
        add_query_rows(model)
    found = set()
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in parts)
        found.add(part)
    if missing := [part for part in parts if part not in found]:
        raise ValueError(f"train names {missing[0]!r}, but this model has none; leave it out.")


def part_of(name: str) -> str:
    """The part that a parameter belongs to."""
    (part,) = [part for part, pattern in PARTS.items() if re.fullmatch(pattern, name)]
    return part


def count_parts(model: InstructVLAForConditionalGeneration) -> dict[str, tuple[int, int]]:
    """Part → (trained, all) parameters, in the order of `PARTS`."""
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.named_parameters():
        count = counts[part_of(name)]
        count[0] += parameter.numel() * parameter.requires_grad
        count[1] += parameter.numel()
    return {part: (trained, total) for part, (trained, total) in counts.items() if total}


def parts_table(counts: dict[str, tuple[int, int]]) -> list[str]:
    """What is trained and what is frozen, for a person."""
    rows = [(part, f"{trained / 1e6:,.2f}", f"{total / 1e6:,.2f}") for part, (trained, total) in counts.items()]
    trained, total = (sum(count[place] for count in counts.values()) for place in (0, 1))
    rows.append(("together", f"{trained / 1e6:,.2f}", f"{total / 1e6:,.2f}"))
    return [f"{part:<20}{own:>12}{all_:>12}" for part, own, all_ in [("part", "trained, M", "of, M"), *rows]]
