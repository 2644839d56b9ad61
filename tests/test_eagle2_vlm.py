"""Eagle2's config.json and tokenizer in our terms; everything that would compute something else is refused."""

import json

import pytest

from instructvla import InstructVLAConfig
from instructvla.eagle2_vlm import read_eagle2
from tests.tiny_processor import SPECIAL_TOKENS, byte_tokenizer
from tests.tiny_sources import TEXT, VISION, eagle2_config, write_eagle2

TOKENIZER = byte_tokenizer(SPECIAL_TOKENS, num_queries=0)


def test_its_fields_make_our_configuration(tmp_path):
    eagle2 = read_eagle2(write_eagle2(tmp_path))
    config = InstructVLAConfig.from_dict(eagle2.config_fields(8))
    for name, value in VISION.items():
        assert getattr(config.vision_config, name) == value
    for name in TEXT.keys() - {"rope_theta"}:
        assert getattr(config.text_config, name) == TEXT[name]
    assert config.text_config.rope_parameters["rope_theta"] == TEXT["rope_theta"]
    assert config.text_config.vocab_size == len(TOKENIZER) + 8
    assert config.query_token_id == len(TOKENIZER)
    assert config.image_token_id == TOKENIZER.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert config.end_of_turn_ids == [TOKENIZER.convert_tokens_to_ids("<|im_end|>")]
    assert config.num_image_tokens == 4
    assert not eagle2.tied_embeddings


def test_its_own_end_token_ends_an_answer_too(tmp_path):
    config = eagle2_config()
    config["llm_config"]["eos_token_id"] = 0
    fields = read_eagle2(write_eagle2(tmp_path, config)).config_fields(8)
    assert fields["text_config"]["eos_token_id"] == [TOKENIZER.convert_tokens_to_ids("<|im_end|>"), 0]


def test_queries_follow_the_vocabulary_in_their_order(tmp_path):
    eagle2 = read_eagle2(write_eagle2(tmp_path))
    tokenizer = eagle2.tokenizer_with_queries(8)
    names = [f"<new_token_{index}>" for index in range(8)]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(len(TOKENIZER), len(TOKENIZER) + 8))
    assert len(eagle2.tokenizer) == len(TOKENIZER)


def test_tokenizer_that_has_queries_already_is_refused(tmp_path):
    write_eagle2(tmp_path)
    byte_tokenizer(SPECIAL_TOKENS, num_queries=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has action queries already; give the base VLM's"):
        read_eagle2(tmp_path).tokenizer_with_queries(8)


@pytest.mark.parametrize("queries", [0, True, "8", None])
def test_number_of_queries_is_checked(tmp_path, queries):
    with pytest.raises(ValueError, match="num_action_queries is .* an integer above 0"):
        read_eagle2(write_eagle2(tmp_path)).config_fields(queries)


OTHER_ARCHITECTURES = {
    "select_layer is -2": {"select_layer": -2},
    "ps_version is 'v1'": {"ps_version": "v1"},
    "force_image_size is 448, but it must be 56": {"force_image_size": 448},
    r"has no llm_config; the base VLM must be in Eagle2's format": {"llm_config": None},
    "has no vision_config": {"vision_config": 3},
    "llm_config.model_type is 'llama', but it must be 'qwen2'": {"llm_config": {"model_type": "llama"}},
    "vision_config.model_type is 'radio'": {"vision_config": {"model_type": "radio"}},
    "llm_config.use_sliding_window is True": {"llm_config": {"model_type": "qwen2", "use_sliding_window": True}},
}


@pytest.mark.parametrize("message", OTHER_ARCHITECTURES)
def test_other_architectures_are_refused_by_field(tmp_path, message):
    with pytest.raises(ValueError, match=message):
        read_eagle2(write_eagle2(tmp_path, eagle2_config(**OTHER_ARCHITECTURES[message])))


WRONG_VALUES = {
    "vision_config.patch_size is 0, but it must be an integer above 0": {"patch_size": 0},
    "vision_config.patch_size is '14', but it must be an integer": {"patch_size": "14"},
    "vision_config.num_attention_heads is 0, but it must be an integer": {"num_attention_heads": 0},
    r"vision_config.num_attention_heads is 3, but it must be a divisor of hidden_size \(32\)": {
        "num_attention_heads": 3
    },
    r"vision_config.image_size is 57, but it must be a multiple of patch_size \(14\)": {"image_size": 57},
    "vision_config.hidden_size is 32.0, but it must be an integer": {"hidden_size": 32.0},
    "vision_config.hidden_act is 'nope', but it must be the name of an activation": {"hidden_act": "nope"},
    "vision_config.layer_norm_eps is -1, but it must be a number above 0": {"layer_norm_eps": -1},
    "llm_config.num_attention_heads is 0": {"num_attention_heads": 0},
    "llm_config.num_attention_heads is 3, but it must be a divisor": {"num_attention_heads": 3},
    r"llm_config.num_key_value_heads is 3, but it must be a divisor of num_attention_heads \(4\)": {
        "num_key_value_heads": 3
    },
    "llm_config.num_hidden_layers is '2'": {"num_hidden_layers": "2"},
    "llm_config.vocab_size is True": {"vocab_size": True},
    r"llm_config.hidden_act is \['silu'\]": {"hidden_act": ["silu"]},
    "llm_config.rope_theta is '1e6', but it must be a number": {"rope_theta": "1e6"},
    "llm_config.rms_norm_eps is 0, but it must be a number": {"rms_norm_eps": 0},
    "llm_config.max_position_embeddings is 0": {"max_position_embeddings": 0},
    "llm_config.initializer_range is '0.02'": {"initializer_range": "0.02"},
    "llm_config.rope_scaling is 'yarn', but it must be a JSON object": {"rope_scaling": "yarn"},
    "llm_config.bos_token_id is 'x', but it must be an id": {"bos_token_id": "x"},
    "llm_config.bos_token_id is False": {"bos_token_id": False},
    r"llm_config.eos_token_id is \[\[1\]\], but it must be an id of the vocabulary, or a list": {"eos_token_id": [[1]]},
    "downsample_ratio is '0.5', but it must be a number above 0": {"downsample_ratio": "0.5"},
    "downsample_ratio is 0, but it must be a number above 0": {"downsample_ratio": 0},
}


@pytest.mark.parametrize("message", WRONG_VALUES)
def test_impossible_values_are_refused_by_field(tmp_path, message):
    config = eagle2_config()
    section = message.split(".")[0]
    config.get(section, config).update(WRONG_VALUES[message])
    with pytest.raises(ValueError, match=message):
        read_eagle2(write_eagle2(tmp_path, config))


def test_values_of_other_towers_are_accepted(tmp_path):
    config = eagle2_config(VISION | {"num_attention_heads": 4, "patch_size": 7}, downsample_ratio=0.25)
    config["llm_config"] |= {"hidden_act": "gelu", "rope_theta": 10_000, "bos_token_id": 0}
    eagle2 = read_eagle2(write_eagle2(tmp_path, config))
    assert eagle2.vision_config["patch_size"] == 7
    assert (eagle2.text_config["rope_theta"], eagle2.text_config["bos_token_id"]) == (10_000, 0)
    assert eagle2.downsample_ratio == 0.25


@pytest.mark.parametrize("name", ["vision_config.num_attention_heads", "llm_config.rope_theta"])
def test_field_that_no_tensor_tells_is_needed(tmp_path, name):
    config = eagle2_config()
    section, field = name.split(".")
    del config[section][field]
    with pytest.raises(ValueError, match=f"lacks {name}"):
        read_eagle2(write_eagle2(tmp_path, config))


def test_broken_or_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        read_eagle2(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="must hold a JSON object, not list"):
        read_eagle2(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="can't be read as JSON"):
        read_eagle2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(eagle2_config()))
    with pytest.raises(ValueError, match=r"has no tokenizer\.json or vocab\.json"):
        read_eagle2(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="can't be read"):
        read_eagle2(tmp_path)


def test_tokenizer_of_another_model_is_refused_by_what_it_lacks(tmp_path):
    write_eagle2(tmp_path)
    byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], num_queries=0).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks <img>, </img>, <IMG_CONTEXT>; it is not Eagle2's"):
        read_eagle2(tmp_path)
