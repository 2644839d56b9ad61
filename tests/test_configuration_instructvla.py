"""The configuration: presets, JSON round trip, and one clear message for each bad value."""

import json

import pytest
from transformers import AutoConfig, Qwen2Config, SiglipVisionConfig

from instructvla import InstructVLAConfig
from instructvla.configuration_instructvla import nano_text_config
from instructvla.configuration_sections import ActionExpertConfig, AdapterConfig, FlowConfig


def test_full_size_preset_has_the_numbers_of_the_paper():
    config = InstructVLAConfig.instructvla_2b()
    adapters, expert, flow = config.adapter_config, config.action_expert_config, config.flow_config
    assert (adapters.rank, adapters.alpha, adapters.dropout, adapters.experts) == (128, 256, 0.05, 2)
    assert (adapters.scale_head_depth, adapters.scale_head_size) == (4, 128)
    assert set(adapters.target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    assert (expert.num_hidden_layers, expert.num_attention_heads, expert.hidden_size) == (12, 12, 768)
    assert (expert.rope_theta, expert.attention) == (1000, "block_causal")
    assert (flow.tau_max, flow.num_inference_steps, flow.time_max_period) == (0.999, 10, 100)
    assert (config.num_image_tokens, config.num_action_queries, config.horizon) == (256, 64, 16)
    assert config.action_vision_config.feature_layer == config.action_vision_config.depth - 2


@pytest.mark.parametrize("preset", ["instructvla_2b", "nano"])
def test_configuration_survives_json(preset, tmp_path):
    config = getattr(InstructVLAConfig, preset)(
        state_dim=8,
        cameras=["primary", "wrist"],
        action_expert_config={"attention": "additive_bias", "hidden_size": 64, "num_attention_heads": 4},
        flow_config={"scheduler": "FlowMatchHeunDiscreteScheduler"},
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict() | {
        "architectures": loaded.architectures,
        "transformers_version": loaded.transformers_version,
        "_name_or_path": "",
    }
    assert loaded.adapter_config == config.adapter_config


def test_json_holds_every_own_field_so_that_later_defaults_cannot_change_a_checkpoint(tmp_path):
    config = InstructVLAConfig.instructvla_2b()
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["flow_config"]["beta_a"] == 1.5
    assert saved["adapter_config"]["rank"] == 128
    assert {"horizon", "action_dim", "cameras", "state_dim", "image_token_id", "query_token_id"} <= set(saved)


BAD_VALUES = [
    ({"horizon": 0}, "horizon is 0"),
    ({"horizon": "16"}, "horizon is '16'"),
    ({"state_dim": -1}, "state_dim is -1"),
    ({"cameras": []}, "cameras is []"),
    ({"cameras": ["a", "a"]}, "cameras is ['a', 'a']"),
    ({"query_token_id": 2040}, "query_token_id is 2040, but it must be an id of at most 2032"),
    ({"image_token_id": 2033}, "image_token_id is 2033"),
    ({"action_expert_config": {"attention": "causal"}}, "action_expert_config.attention is 'causal'"),
    ({"action_expert_config": {"hidden_size": 100}}, "action_expert_config.hidden_size is 100"),
    ({"action_vision_config": {"feature_layer": 24}}, "action_vision_config.feature_layer is 24"),
    ({"action_vision_config": {"image_size": 225}}, "action_vision_config.image_size is 225"),
    ({"adapter_config": {"target_modules": ["qkv"]}}, "adapter_config.target_modules is ['qkv']"),
    ({"adapter_config": {"experts": -1}}, "adapter_config.experts is -1, but it must be an integer of 0 or more"),
    ({"flow_config": {"sigma_min": 1.5}}, "flow_config.sigma_min is 1.5"),
    ({"flow_config": {"scheduler": "Euler"}}, "flow_config.scheduler is 'Euler'"),
    ({"projector": {"downsample_ratio": 0.3}}, "projector.downsample_ratio is 0.3"),
    ({"projector": {"downsample_ratio": 1 / 3}}, "k dividing 8 patches"),
    ({"vision_config": 3}, "vision_config is 3"),
    ({"vision_config": {"patch_size": 0}}, "vision_config.patch_size is 0"),
    ({"vision_config": {"image_size": [112, 112]}}, "vision_config.image_size is [112, 112]"),
    ({"text_config": {"eos_token_id": None}}, "text_config.eos_token_id is None"),
    ({"text_config": {"use_sliding_window": True}}, "text_config.use_sliding_window is True"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
    ({"text_config": {"tie_word_embeddings": True}}, "text_config.tie_word_embeddings is True"),
    ({"text_config": {"num_attention_heads": 5}}, "text_config.num_attention_heads is 5"),
    ({"vision_config": {"hidden_size": -1}}, "vision_config.hidden_size is -1"),
    ({"num_action_queries": "16"}, "num_action_queries is '16'"),
    ({"num_action_queries": 5000, "text_config": nano_text_config()}, "num_action_queries is 5000"),
    ({"flow_config": {"scheduler_kwargs": {"foo": 1}}}, "flow_config.scheduler_kwargs is {'foo': 1}"),
    ({"query_token_id": "5"}, "query_token_id is '5'"),
    ({"image_token_id": None}, "image_token_id is None"),
    ({"image_token_id": 5.5}, "image_token_id is 5.5"),
    ({"cameras": [""]}, "cameras is ['']"),
    ({"cameras": ["primary wrist"]}, "names without spaces, such as [primary, wrist]"),
    ({"cameras": ["primary", " wrist"]}, "cameras is ['primary', ' wrist']"),
    ({"flow_config": 3}, "flow_config is 3"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_VALUES, ids=[message for _, message in BAD_VALUES])
def test_bad_value_is_named_with_what_is_allowed(fields, message):
    with pytest.raises(ValueError) as error:
        InstructVLAConfig.nano(**fields)
    assert message in str(error.value)
    assert "must be" in str(error.value)


def test_unknown_field_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"adapter_config\.rnak is not a field.*Did you mean 'rank'"):
        InstructVLAConfig.nano(adapter_config={"rnak": 8})
    with pytest.raises(ValueError, match="horizn is not a field.*Did you mean 'horizon'"):
        InstructVLAConfig.nano(horizn=8)


def test_sections_may_be_given_as_objects_or_dictionaries():
    as_objects = InstructVLAConfig.nano(adapter_config=AdapterConfig(rank=4), flow_config=FlowConfig(sigma_min=0.0))
    as_dictionaries = InstructVLAConfig.nano(adapter_config={"rank": 4}, flow_config={"sigma_min": 0.0})
    assert as_objects.to_dict() == as_dictionaries.to_dict()


def test_cameras_are_not_shared_between_configurations():
    InstructVLAConfig.nano().cameras.append("wrist")
    assert InstructVLAConfig.nano().cameras == ["primary"]


def test_part_of_a_library_configuration_changes_that_part_alone():
    config = InstructVLAConfig(vision_config={"image_size": 224}, text_config={"num_hidden_layers": 2})
    assert (config.vision_config.hidden_size, config.vision_config.patch_size) == (1152, 14)
    assert not config.vision_config.vision_use_head
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (1536, 2)
    assert config.num_image_tokens == 64


def test_what_a_library_configuration_refuses_is_a_value_error_too():
    with pytest.raises(ValueError, match=r"(?s)text_config does not make a Qwen2Config: .*hidden_size"):
        InstructVLAConfig.nano(text_config={"hidden_size": "wide"})


def test_older_names_of_a_library_configuration_win_over_our_defaults():
    assert InstructVLAConfig(text_config={"rope_theta": 1e4}).text_config.rope_parameters["rope_theta"] == 1e4


def test_a_full_dump_of_an_older_transformers_is_accepted():
    """As in Eagle2's own files: keys of transformers 4, and a backend that is the whole model's to choose."""
    dump = {
        "model_type": "qwen2",
        "vocab_size": 151738,
        "rope_theta": 1000000.0,
        "tie_encoder_decoder": False,
        "tie_word_embeddings": False,
        "attn_implementation": "flash_attention_2",
        "torch_dtype": "bfloat16",
        "use_bfloat16": False,
        "pruned_heads": {},
        "sliding_window": 32768,
        "use_sliding_window": False,
    }
    config = InstructVLAConfig(text_config=dump)
    assert config.text_config._attn_implementation != "flash_attention_2"
    assert config.text_config.rope_parameters["rope_theta"] == 1e6


def test_a_configuration_given_as_an_object_is_not_changed():
    vision = SiglipVisionConfig(image_size=448, patch_size=14)
    assert not InstructVLAConfig(vision_config=vision).vision_config.vision_use_head
    assert getattr(vision, "vision_use_head", True)  # older transformers has no such field


def test_overrides_take_along_what_follows_from_them(tmp_path):
    InstructVLAConfig.nano().save_pretrained(tmp_path)
    fewer = InstructVLAConfig.from_pretrained(tmp_path, text_config={"num_hidden_layers": 2})
    assert (fewer.text_config.num_hidden_layers, fewer.text_config.hidden_size) == (2, 192)
    heun = InstructVLAConfig.from_pretrained(tmp_path, flow_config={"scheduler": "FlowMatchHeunDiscreteScheduler"})
    assert heun.flow_config.scheduler_kwargs == {}


def test_overrides_at_loading_are_merged_and_checked(tmp_path):
    InstructVLAConfig.nano().save_pretrained(tmp_path)
    loaded = InstructVLAConfig.from_pretrained(tmp_path, flow_config={"num_inference_steps": 4})
    assert (loaded.flow_config.num_inference_steps, loaded.flow_config.beta_a) == (4, 1.5)
    with pytest.raises(ValueError, match="horizon is -1"):
        InstructVLAConfig.from_pretrained(tmp_path, horizon=-1)


def test_what_a_trainer_adds_to_the_configuration_is_saved_and_loads(tmp_path):
    config = InstructVLAConfig.nano()
    config.use_cache = False
    config.pad_token_id = 3
    config.scratch = "of a callback"
    config.save_pretrained(tmp_path)
    assert not hasattr(InstructVLAConfig.from_pretrained(tmp_path), "scratch")


def test_attention_backend_reaches_the_language_model():
    config = InstructVLAConfig.nano(attn_implementation="eager")
    assert isinstance(config.text_config, Qwen2Config)
    assert config.text_config._attn_implementation == "eager"


def test_stage_follows_from_the_number_of_experts():
    stage_1 = InstructVLAConfig.nano(adapter_config={"experts": 1})
    merged, stage_2 = InstructVLAConfig.nano(adapter_config={"experts": 0}), InstructVLAConfig.nano()
    assert (merged.thinks_by_default, merged.response_style) == (False, "motion")
    assert (stage_1.thinks_by_default, stage_1.response_style) == (False, "motion")
    assert (stage_2.thinks_by_default, stage_2.response_style) == (True, "answer")
    assert ActionExpertConfig().attention_dropout == 0.1
