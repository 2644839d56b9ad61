"""The analytic FLOP count against torch's own counter on the real model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.nano import untrained_nano
from instructvla.training.trainable_parts import STAGE_1, STAGE_2, train_only
from instructvla.training.training_flops import Flops, StepShape, training_flops
from tests.training_batch import text_batch, training_batch

EVERYTHING = ("action_expert", "adaptation_experts", "scale_head", "embeddings", "language_model")
EVERYTHING += ("vision_model", "projector")
CASES = {
    "stage 1": (STAGE_1, {"adapter_config": {"experts": 1, "rank": 8}}),
    "stage 2": (STAGE_2, {}),
    "stage 2, joint": ((*STAGE_2, "action_expert", "action_vision"), {}),
    "stage 2, expert without its tower": ((*STAGE_2, "action_expert"), {}),
    "full fine-tuning": (EVERYTHING, {}),
    "state, no tower": (STAGE_2, {"state_dim": 3, "action_vision_config": None}),
    "fewer targets": (STAGE_2, {"adapter_config": {"rank": 8, "target_modules": ["o_proj", "up_proj"]}}),
}


def prepared(train, fields):
    """A training model whose attention is plain products, which torch counts without a kernel's recomputation."""
    model = untrained_nano(attn_implementation="eager", **fields).train()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    train_only(model, train)
    return model


def counted(model, batch) -> tuple[int, int]:
    """(forward, backward) as torch counts them."""
    with FlopCounterMode(display=False) as forward:
        loss = model(**batch).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def total(parts: dict[str, Flops], name: str) -> int:
    return sum(getattr(flops, name) for flops in parts.values())


@pytest.mark.parametrize("case", CASES)
def test_robot_batches_cost_what_torch_counts(case):
    train, fields = CASES[case]
    model = prepared(train, fields)
    batch = training_batch(model, state=None if model.config.state_dim is None else [[0.0] * 3] * 2)
    parts = training_flops(model.config, train, StepShape.of(batch))
    forward, backward = counted(model, batch)
    assert total(parts, "forward") == pytest.approx(forward, rel=0.02)
    assert total(parts, "backward") == pytest.approx(backward, rel=0.02)


def test_chat_without_pictures_costs_what_torch_counts():
    model = prepared(STAGE_2, {})
    batch = text_batch(model)
    parts = training_flops(model.config, STAGE_2, StepShape.of(batch))
    forward, backward = counted(model, batch)
    assert total(parts, "forward") == pytest.approx(forward, rel=0.02)
    assert total(parts, "backward") == pytest.approx(backward, rel=0.02)
    assert "action expert" not in parts


@pytest.mark.parametrize("stage", ["stage 1", "stage 2"])
def test_recomputing_costs_a_forward_pass_of_the_layers_that_learn_or_pass_gradients_on(stage):
    train, fields = CASES[stage]
    model = prepared(train, fields)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = training_batch(model)
    parts = training_flops(model.config, train, StepShape.of(batch))
    _, backward = counted(model, batch)
    assert total(parts, "backward") + total(parts, "recompute") == pytest.approx(backward, rel=0.05)
    assert parts["SigLIP"].recompute == 0
    assert stage == "stage 1" or parts["base pass"].recompute == 0


def test_frozen_towers_have_no_backward_pass():
    shape = StepShape(rows=8, tokens=400, images=8, targets=600, acts=True)
    parts = training_flops(InstructVLAConfig.instructvla_2b(), STAGE_2, shape)
    assert {name for name, flops in parts.items() if not flops.backward} == {"SigLIP", "projector", "base pass"}
    assert parts["base pass"].forward == parts["adapted pass"].forward
    adapted = parts["adapted pass"]
    assert adapted.backward < 1.2 * adapted.forward  # input gradients alone, but for attention
    assert adapted.model == adapted.forward + adapted.backward


def test_full_size_step_costs_about_two_flops_per_parameter_and_token():
    """The rule of thumb for a forward pass, of 1.31 B linear weights of Qwen2.5-1.5B."""
    shape = StepShape(rows=1, tokens=400, images=1, targets=70, acts=True)
    parts = training_flops(InstructVLAConfig.instructvla_2b(), STAGE_2, shape)
    assert parts["base pass"].forward == pytest.approx(2 * 1.31e9 * 400, rel=0.03)
    assert parts["SigLIP"].forward == pytest.approx(2 * 0.41e9 * 1024, rel=0.2)
    assert torch.tensor([flops.forward for flops in parts.values()]).min() > 0


@pytest.mark.parametrize("fields", [{"flow_config": {"training_draws": 4}}, {"stem_channels": [8, 16]}])
def test_what_is_not_counted_is_refused(fields):
    sizes = {"action_vision_config": {"patch_size": 8, "image_size": 112, "embed_dim": 32, "num_heads": 2, "depth": 2}}
    vision = {"patch_size": 8, "image_size": 112, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = InstructVLAConfig.nano(**sizes, vision_config=vision | {"num_hidden_layers": 1}, **fields)
    with pytest.raises(ValueError, match="not counted"):
        training_flops(config, STAGE_1, StepShape(rows=1, tokens=90, targets=4, images=1, acts=True))
