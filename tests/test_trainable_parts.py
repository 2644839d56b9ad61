"""Claims about what each stage trains: exactly these tensors by name, in the paper's numbers."""

import re

import pytest
import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.nano import untrained_nano
from instructvla.streamed_checkpoint import meta_model
from instructvla.training.trainable_parts import (
    PARTS,
    STAGE_0,
    STAGE_1,
    STAGE_2,
    count_parts,
    part_of,
    parts_table,
    stage_parts,
    train_only,
)
from tests.training_batch import text_batch, training_batch


def nano(experts: int):
    return untrained_nano(adapter_config={"experts": experts, "rank": 4, "alpha": 8})


def steps(model, batches) -> set[str]:
    """Names of the tensors that two AdamW steps, with decay, change."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    for batch in batches:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def matching(model, pattern: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if re.fullmatch(pattern, name)}


def test_stage_1_moves_the_action_expert_the_action_lora_and_the_query_rows_and_nothing_else():
    model = nano(1)
    train_only(model, STAGE_1)
    moved = steps(model, [training_batch(model), training_batch(model)])
    expected = matching(model, r"action_expert\..+|.+\.lora_[AB]|language_model\.(embed_tokens|lm_head)\.query_rows")
    assert moved == expected


def test_stage_2_moves_both_experts_and_the_scale_head_and_nothing_else():
    model = nano(2)
    train_only(model, STAGE_2)
    moved = steps(model, [training_batch(model), text_batch(model)])
    assert moved == matching(model, r".+\.lora_[AB]|language_model\.scale_head\..+")


def test_stage_0_moves_the_vlm_and_the_action_experts_tower_and_nothing_else():
    model = nano(1)
    train_only(model, STAGE_0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == matching(
        model, r"(?!.+\.lora_[AB]$)(language_model|vision_model|projector|action_expert\.vision)\..+"
    )


def test_a_model_without_a_tower_trains_the_rest():
    model = untrained_nano(action_vision_config=None, adapter_config={"experts": 1})
    assert stage_parts(1, model) == tuple(part for part in STAGE_1 if part != "action_vision")


def test_full_fine_tuning_moves_the_vlm_and_the_embeddings():
    model = nano(1)
    parts = (
        "action_expert",
        "action_vision",
        "adaptation_experts",
        "embeddings",
        "language_model",
        "projector",
        "vision_model",
    )
    train_only(model, parts)
    # The last key's bias shifts all attention scores of a query alike, so that no gradient reaches it.
    still = {name for name, _ in model.named_parameters()} - steps(model, [training_batch(model)] * 2)
    assert all(name.endswith("k_proj.bias") for name in still)


def test_every_parameter_belongs_to_one_part():
    for experts in (1, 2):
        model = nano(experts)
        assert {part_of(name) for name, _ in model.named_parameters()} <= set(PARTS)


@pytest.mark.parametrize(
    ("experts", "parts", "feature_layer", "millions"),
    [(1, STAGE_1, 23, 650.4), (1, STAGE_1, 22, 634.6), (2, STAGE_2, 22, 220.4)],
)
def test_counts_at_full_size_are_the_papers(experts, parts, feature_layer, millions):
    """The paper's 650 M hold DINOv2's last block, whose output no part of the released model reads."""
    fields = {"adapter_config": {"experts": experts}, "action_vision_config": {"feature_layer": feature_layer}}
    model = meta_model(InstructVLAConfig.instructvla_2b(**fields), torch.float32)
    train_only(model, parts)
    counts = count_parts(model)
    assert round(sum(trained for trained, _ in counts.values()) / 1e6, 1) == millions
    assert parts_table(counts)[-1].split()[:2] == ["together", f"{sum(own for own, _ in counts.values()) / 1e6:.2f}"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "train is empty"),
        (("action_expart",), "nearest is 'action_expert'"),
        (("scale_head",), "this model has none"),
        (("query_rows", "embeddings"), "the embeddings hold the query rows"),
    ],
)
def test_parts_that_can_not_be_trained_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        train_only(nano(1), parts)
