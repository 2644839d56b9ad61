"""A processor made for a configuration fits its model."""

import pytest

from instructvla import InstructVLAConfig
from instructvla.matching_processor import matching_processor
from instructvla.nano import nano_processor, untrained_nano

TOKENIZER = nano_processor().tokenizer


def test_sizes_cameras_and_dimensions_are_the_configurations():
    config = InstructVLAConfig.nano(cameras=["front", "wrist"], state_dim=4)
    processor = matching_processor(config, TOKENIZER)
    assert (processor.num_image_tokens, processor.num_action_queries) == (16, 16)
    assert (processor.image_size, processor.action_image_size) == (112, 112)
    assert (processor.cameras, processor.state_dim, processor.action_dim) == (["front", "wrist"], 4, 7)
    assert processor.action_crop_pct == 1.0
    assert processor.statistics is None


def test_model_of_that_configuration_accepts_it():
    model = untrained_nano(cameras=["front", "wrist"])
    model.processor = processor = matching_processor(model.config, TOKENIZER)
    assert model.processor is processor
    with pytest.raises(ValueError, match="cameras"):
        model.processor = matching_processor(InstructVLAConfig.nano(), TOKENIZER)


def test_further_fields_are_passed_on_and_checked():
    config = InstructVLAConfig.nano(action_dim=2)
    fields = {"action_names": ["x", "grip"], "action_units": ["m", "0 to 1"], "gripper_dims": [1]}
    assert matching_processor(config, TOKENIZER, **fields).action_names == ["x", "grip"]
    with pytest.raises(ValueError, match="action_names must name 2 action dimensions"):
        matching_processor(config, TOKENIZER)
    with pytest.raises(ValueError, match="lacks"):
        matching_processor(InstructVLAConfig.nano(num_action_queries=17, query_token_id=2031 - 17), TOKENIZER)
