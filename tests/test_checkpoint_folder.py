"""A folder counts as a checkpoint by its config.json alone."""

import pytest

from instructvla.checkpoint_folder import checkpoint_folder


def test_a_folder_with_our_configuration_is_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "instructvla"}')
    assert checkpoint_folder(tmp_path) == tmp_path


REFUSALS = {
    "is no checkpoint: it has no config.json": None,
    "holds a model of type 'qwen2'; give an InstructVLA checkpoint": '{"model_type": "qwen2"}',
    "holds a model of type None": "{}",
    "can't be read as JSON": "{",
}


@pytest.mark.parametrize("message", REFUSALS)
def test_another_folder_is_refused(tmp_path, message):
    if REFUSALS[message] is not None:
        (tmp_path / "config.json").write_text(REFUSALS[message])
    with pytest.raises(ValueError, match=message):
        checkpoint_folder(tmp_path)
