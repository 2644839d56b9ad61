"""A single expert merged into the base weights: the same actions, at less cost."""

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla import InstructVLAForConditionalGeneration
from instructvla.merged_expert import merge_expert
from instructvla.peft_adapters import expert_adapter, plain_language_model
from tests.lively_experts import lively, logits
from tests.parity import relative_error


@pytest.fixture(scope="module")
def mixture():
    return lively(2)


@pytest.fixture(scope="module")
def single():
    return lively(1)


def act(model, **arguments) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    noise = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(5))
    return model.generate_action(Image.fromarray(pixels), "pick it up", noise=noise, **arguments)


def test_merged_model_acts_the_same_with_fewer_parameters(single):
    merged = merge_expert(single)
    ours, theirs = act(merged), act(single)
    assert relative_error(ours.latent_actions, theirs.latent_actions) < 1e-5  # W + (α/r) B A is rounded once
    assert relative_error(ours.actions, theirs.actions) < 1e-5
    assert relative_error(logits(plain_language_model(single)), logits(single)) > 0.05
    lora = sum(value.numel() for name, value in single.state_dict().items() if "lora" in name)
    assert lora > 0
    assert merged.num_parameters() == single.num_parameters() - lora


def test_merging_leaves_the_model_as_it_was_and_shares_what_is_not_adapted():
    model = lively(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = merge_expert(model)
    assert model.config.adapter_config.experts == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert merged.language_model.lm_head.weight.data_ptr() == model.language_model.lm_head.weight.data_ptr()


def test_merged_model_loads_strictly_and_thinks_as_stage_one_does(tmp_path, single):
    merge_expert(single).save_pretrained(tmp_path)
    loaded = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config.adapter_config.experts == 0
    assert act(loaded).response == [None]
    assert torch.equal(act(loaded).actions, act(merge_expert(single)).actions)


def test_merging_rounds_once_from_float32(single):
    model = lively(1).to(torch.bfloat16)
    layer = model.language_model.layers[0].mlp.up_proj
    exact = layer.weight.double() + 2 * layer.lora_B[:, 0].double() @ layer.lora_A[0].double()
    merged = merge_expert(model).language_model.layers[0].mlp.up_proj.weight
    assert merged.dtype == torch.bfloat16
    assert ((merged.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()  # half a unit in the last place


def test_a_mixture_and_a_merged_model_are_not_merged(mixture, single):
    with pytest.raises(ValueError, match="the scale head gates its experts anew for each token"):
        merge_expert(mixture)
    merged = merge_expert(single)
    with pytest.raises(ValueError, match="can't be merged: it has no experts"):
        merge_expert(merged)
    with pytest.raises(ValueError, match="no 'action' expert: it has none, as after a merge"):
        expert_adapter(merged, "action")
