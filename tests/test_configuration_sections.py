"""The sections of the configuration: defaults of their own, and refusals that say what is allowed."""

import pytest

from instructvla.configuration_sections import (
    ActionExpertConfig,
    ActionVisionConfig,
    AdapterConfig,
    FlowConfig,
    ProjectorConfig,
)


def test_defaults_are_not_shared():
    FlowConfig().scheduler_kwargs["shift"] = 3.0
    AdapterConfig().target_modules.append("gate_proj")
    assert FlowConfig().scheduler_kwargs == {"invert_sigmas": True}
    assert "gate_proj" not in AdapterConfig().target_modules


def test_section_is_built_from_itself_its_json_form_or_nothing():
    section = AdapterConfig(rank=4)
    assert AdapterConfig.of(section) is section
    assert AdapterConfig.of({"rank": 4}) == section
    assert AdapterConfig.of(None) == AdapterConfig()


def test_penultimate_block_is_the_default_feature_layer():
    assert ActionVisionConfig(depth=12).feature_layer == 10
    assert ActionVisionConfig(depth=12, feature_layer=2).feature_layer == 2


def test_experts_have_names_in_the_order_of_their_matrices():
    names = [AdapterConfig(experts=experts).expert_names for experts in range(4)]
    assert names == [[], ["action"], ["language", "action"], ["language", "action", "2"]]


NO_FLOW = [
    ("NoSuchScheduler", {}, "scheduler is 'NoSuchScheduler', but it must be a scheduler of diffusers"),
    ("DDPMScheduler", {}, "to integrate a flow; or take one of FlowMatchEulerDiscreteScheduler"),
    ("FlowMatchLCMScheduler", {}, "to integrate a flow"),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "'prediction_type': 'flow_prediction'"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), NO_FLOW)
def test_schedulers_that_integrate_no_flow_are_refused(name, arguments, message):
    with pytest.raises(ValueError) as error:
        FlowConfig(scheduler=name, scheduler_kwargs=arguments)
    assert message in str(error.value)


BAD_NUMBERS = [
    (ActionExpertConfig, {"rms_norm_eps": "a"}),
    (ActionExpertConfig, {"rope_theta": float("inf")}),
    (ActionExpertConfig, {"attention_dropout": 1.0}),
    (ActionVisionConfig, {"layer_norm_eps": None}),
    (ActionVisionConfig, {"mlp_ratio": -1}),
    (AdapterConfig, {"alpha": float("nan")}),
    (AdapterConfig, {"target_modules": [["q_proj"]]}),
    (AdapterConfig, {"experts": False}),
    (AdapterConfig, {"experts": 0.0}),
    (FlowConfig, {"beta_a": 0}),
    (FlowConfig, {"num_inference_steps": True}),
    (ProjectorConfig, {"downsample_ratio": "half"}),
]


@pytest.mark.parametrize(("section", "fields"), BAD_NUMBERS)
def test_bad_number_is_named_with_its_section(section, fields):
    (name,) = fields
    with pytest.raises(ValueError, match=rf"{section.section}\.{name} is .* but it must be"):
        section(**fields)
