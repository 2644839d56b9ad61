"""Claims about the configuration that is read off a published checkpoint."""

import pytest

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.eagle2_vlm import read_eagle2
from instructvla.official_names import account_for
from instructvla.official_sizes import count_queries, released_fields, require_same_run
from tests.official_run_folder import published_tensors, write_base_vlm


def shapes_of(fixture: str) -> dict[str, tuple[int, ...]]:
    modules = published_tensors(fixture).items()
    return {f"{module}.{name}": tuple(tensor.shape) for module, names in modules for name, tensor in names.items()}


@pytest.fixture(scope="module")
def eagle2(tmp_path_factory):
    return read_eagle2(write_base_vlm(tmp_path_factory.mktemp("base")))


def fields_of(fixture: str, eagle2, **changes):
    shapes = shapes_of(fixture) | {name.replace("__", "."): shape for name, shape in changes.items()}
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}
    return released_fields(account_for(shapes, feature_layer=2), shapes, eagle2)


def test_stage_2_is_told_by_its_tensors(eagle2):
    fields, assumed = fields_of("predict_action_stage2_generate", eagle2)
    adapters = fields["adapter_config"]
    assert (adapters["experts"], adapters["rank"]) == (2, 4)
    assert (adapters["scale_head_depth"], adapters["scale_head_size"]) == (4, 24)
    assert set(adapters["target_modules"]) == {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    assert fields["state_dim"] is None and fields["num_action_queries"] == 16
    assert assumed["adapter_config.alpha"] == 8
    assert assumed["action_expert_config.num_attention_heads"] is None  # 32 wide: not a multiple of 64


def test_stage_1_with_state_is_told_by_its_tensors(eagle2):
    fields, _ = fields_of("predict_action_stage1_state", eagle2)
    assert fields["adapter_config"]["experts"] == 1 and fields["state_dim"] == 8
    vision = fields["action_vision_config"]
    assert (vision["embed_dim"], vision["depth"], vision["image_size"], vision["mlp_ratio"]) == (24, 4, 56, 4.0)
    expert = fields["action_expert_config"]
    assert (expert["hidden_size"], expert["intermediate_size"], expert["num_hidden_layers"]) == (32, 80, 2)


def test_the_horizon_is_the_width_of_the_action_head(eagle2):
    fields, _ = fields_of("predict_action_stage1", eagle2, action_model__action_head__0__weight=(128, 256))
    assert fields["horizon"] == 8


@pytest.mark.parametrize(("rows", "told"), [(263, None), (270, "16"), (279, "many"), (151738, None)])
def test_a_vocabulary_that_does_not_tell_its_queries_is_refused(rows, told):
    with pytest.raises(ValueError, match="--set num_action_queries=N"):
        count_queries(rows, 263, told)


def test_the_run_tells_the_queries_where_rows_are_left_over():
    assert count_queries(151738, 263, "64") == 64
    assert count_queries(279, 263, None) == 16


def test_a_part_that_is_absent_is_named_by_our_place_for_it(eagle2):
    with pytest.raises(ValueError, match=r"no tensor for action_expert\.transformer\.norm\.weight"):
        fields_of("predict_action_stage1", eagle2, action_model__VideoGPT__model__norm__weight=None)


def test_the_base_vlm_must_have_the_sizes_of_the_tensors(eagle2):
    with pytest.raises(ValueError, match=r"image patches 16 \(checkpoint: 64\)"):
        name = "vision_model__vision_model__embeddings__position_embedding__weight"
        fields_of("predict_action_stage1", eagle2, **{name: (64, 32)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": "stage1"}, r"stage stage1 \(tensors: stage2\)"),
        ({"num_of_meta_query": "32"}, "num_of_meta_query 32"),
        ({"future_action_window_size": 7}, r"future_action_window_size 7 \(tensors: 15\)"),
        ({"action_dim": 14}, "action_dim 14"),
    ],
)
def test_a_run_that_says_otherwise_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        require_same_run(settings, InstructVLAConfig())


def test_numbers_written_as_words_and_settings_left_out_are_accepted():
    require_same_run({"stage": "stage2", "num_of_meta_query": "64", "action_dim": None}, InstructVLAConfig())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("language_model__base_model__model__model__embed_tokens__weight", (279,)),
        ("action_model__film_vision_model__vision_model__pos_embed", (16,)),
        ("action_model__action_embed__linear_1__weight", ()),
        ("action_model__VideoGPT__model__norm__weight", (0,)),
    ],
)
def test_a_tensor_of_another_rank_is_named(eagle2, name, shape):
    with pytest.raises(ValueError, match="dimensions, none empty"):
        fields_of("predict_action_stage1", eagle2, **{name: shape})
