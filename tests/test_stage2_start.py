"""Claims about stage 2's first model: where the gate is the action expert's it acts as stage 1 did."""

import pytest
import torch

from instructvla.nano import nano_processor
from instructvla.training.stage2_start import ACTION, LANGUAGE, stage2_from_stage1
from tests.lively_experts import lively
from tests.training_batch import picture, training_batch


@pytest.fixture
def stage1(tmp_path):
    model = lively(1)
    model.save_pretrained(tmp_path / "stage1")
    return model


def with_gate(model, language: float, action: float):
    """The model with the same gate for every token: softmax of the last layer's bias."""
    last = model.language_model.scale_head[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([language, action]).log())
    return model


def test_the_action_expert_is_carried_over_and_the_language_expert_is_zero(stage1, tmp_path):
    stage2 = stage2_from_stage1(tmp_path / "stage1")
    assert stage2.config.adapter_config.experts == 2 and stage2.config.thinks_by_default
    for name, old in stage1.named_parameters():
        new = stage2.get_parameter(name)
        if name.endswith("lora_A"):
            assert torch.equal(new[ACTION], old[0])
            assert new[LANGUAGE].std() > 0
        elif name.endswith("lora_B"):
            assert torch.equal(new[:, ACTION], old[:, 0])
            assert not new[:, LANGUAGE].any()
        else:
            assert torch.equal(new, old)
    assert stage2.processor.statistics == stage1.processor.statistics


def test_at_the_action_gate_actions_equal_stage_1s(stage1, tmp_path):
    stage2 = with_gate(stage2_from_stage1(tmp_path / "stage1"), 0.0, 1.0)
    batch = training_batch(stage1)
    with torch.no_grad():
        old, new = stage1(**batch), stage2(**batch)
    torch.testing.assert_close(new.latent_actions, old.latent_actions, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(new.flow_loss, old.flow_loss)
    noise = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(0))
    actions = [model.generate_action(picture(), "go", think=False, noise=noise).actions for model in (stage1, stage2)]
    torch.testing.assert_close(*actions, rtol=1e-5, atol=1e-6)


def test_between_the_experts_stage_1s_lora_has_the_gates_share(stage1, tmp_path):
    """A gate of one half on B is what stage 1 computes with half of its B."""
    stage2 = with_gate(stage2_from_stage1(tmp_path / "stage1"), 0.5, 0.5)
    batch = training_batch(stage1)
    with torch.no_grad():
        for name, parameter in stage1.named_parameters():
            if name.endswith("lora_B"):
                parameter.mul_(0.5)
        torch.testing.assert_close(stage2(**batch).latent_actions, stage1(**batch).latent_actions, rtol=1e-5, atol=1e-5)


def test_the_scale_head_is_decided_by_the_seed_and_the_global_random_state_stays(stage1, tmp_path):
    before = torch.get_rng_state()
    heads = [stage2_from_stage1(tmp_path / "stage1", seed).language_model.scale_head for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(heads[0][0].weight, heads[1][0].weight)
    assert not torch.equal(heads[0][0].weight, heads[2][0].weight)


@pytest.mark.parametrize(("experts", "message"), [(2, "is a stage-2 model already"), (0, "has 0 and is a merged one")])
def test_a_folder_that_is_not_stage_1_is_refused(experts, message, tmp_path):
    model = lively(experts)
    model.processor = nano_processor(model.config)
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=message):
        stage2_from_stage1(tmp_path / "other")
