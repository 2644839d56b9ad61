"""The doctor's senses: right about every untrained model, and each broken path found and no other."""

import pytest
import torch

from instructvla.evaluation.doctor_senses import THRESHOLD, check_senses, measure, neutral_processor, unchanged
from instructvla.nano import nano_processor, untrained_nano
from tests.broken_checkpoints import findings

SIZES = {"state_dim": 3, "cameras": ["primary", "wrist"]}
ADDITIVE = {"attention": "additive_bias", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "stage 2": {},
    "stage 1": {"adapter_config": {"experts": 1, "rank": 8}},
    "state and two cameras": SIZES,
    "released attention": {"action_expert_config": ADDITIVE},
}


@pytest.mark.parametrize(
    "name, dtype", [*((name, torch.float32) for name in MODELS), ("state and two cameras", torch.bfloat16)]
)
def test_an_untrained_model_senses_everything(name, dtype):
    model = untrained_nano(seed=3, **MODELS[name]).to(dtype)
    reaction = measure(model)
    assert not unchanged(reaction.latent, reaction.latent_noise)
    assert not unchanged(reaction.action, reaction.action_noise)
    changes = [*reaction.latent.values(), *reaction.action.values()]
    assert min(changes) > 3 * THRESHOLD
    assert max(reaction.latent_noise, reaction.action_noise) < THRESHOLD


LATENT, ACTION = "does not change the latent action", "does not change the action"
BOTH_PICTURES = ["picture of camera 'primary'", "picture of camera 'wrist'"]
BLINDED = {
    "projector.linear_2.weight": [f"the {name} {LATENT}" for name in BOTH_PICTURES],
    "vision_model.embeddings.patch_embedding.weight": [f"the {name} {LATENT}" for name in BOTH_PICTURES],
    "action_expert.visual_projector.2.weight": [f"the {name} {ACTION}" for name in BOTH_PICTURES],
    "action_expert.vision.patch_embed.proj.weight": [f"the {name} {ACTION}" for name in BOTH_PICTURES],
    "action_expert.state_projector.2.weight": [f"the state {ACTION}"],
    "action_expert.latent_projector.2.weight": ["the instruction changes the latent action, but that does not"],
    "language_model.norm.weight": [*(f"the {name} {LATENT}" for name in BOTH_PICTURES), f"the instruction {LATENT}"],
}


@pytest.mark.parametrize(
    "weight, dtype",
    [*((weight, torch.float32) for weight in BLINDED), ("action_expert.state_projector.2.weight", torch.bfloat16)],
)
def test_a_cut_path_is_found_and_no_other_is_accused(weight, dtype):
    model = untrained_nano(**SIZES).to(dtype)
    with torch.no_grad():
        model.get_parameter(weight).zero_()
    found = findings(check_senses(model))
    assert len(found) == len(BLINDED[weight]), found
    assert all(text.startswith(f"senses: {start}") for text, start in zip(found, BLINDED[weight], strict=True))


def test_one_blind_camera_is_told_from_the_other():
    model = untrained_nano(**SIZES)
    see = model.processor.action_inputs

    def without_wrist(images, *arguments):
        inputs = see(images, *arguments)
        inputs["action_pixel_values"][:, 1] = 0
        return inputs

    model.processor.action_inputs = without_wrist
    (found,) = findings(check_senses(model))
    assert f"picture of camera 'wrist' {ACTION}" in found


def test_statistics_in_which_the_state_never_moved_make_the_model_deaf_to_it():
    model = untrained_nano(**SIZES)
    model.processor.statistics["untrained"]["state"]["q01"] = [1.0] * 3
    (found,) = findings(check_senses(model))
    assert f"the state {ACTION}" in found


def test_a_model_that_computes_nan_is_one_finding():
    model = untrained_nano()
    with torch.no_grad():
        model.action_expert.action_head[0].bias[0] = float("nan")
    assert findings(check_senses(model)) == ["senses: the model computes NaN or infinity"]


def test_a_checkpoint_without_statistics_is_examined_in_normalised_units():
    model = untrained_nano(**SIZES)
    original = nano_processor(model.config, statistics=None, control_rate_hz=None)
    model.processor = neutral_processor(original)
    assert not findings(check_senses(model))
    assert original.statistics is None
