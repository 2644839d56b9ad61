"""Claims about where and as what a model runs."""

import pytest
import torch

from instructvla import full_size
from instructvla.evaluation.inference_model import load_for_inference
from instructvla.nano import untrained_nano


@pytest.mark.parametrize(("dtype", "found"), [(None, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_on_a_cpu_a_checkpoint_is_float32_unless_another_type_is_asked_for(tmp_path, dtype, found):
    untrained_nano().to(torch.bfloat16).save_pretrained(tmp_path)
    model = load_for_inference(str(tmp_path), device="cpu", dtype=dtype)
    assert model.dtype is found and not model.training and model.processor.pixel_device is None


def test_models_without_training_go_by_name(monkeypatch):
    assert load_for_inference("nano", device="cpu").config.text_config.hidden_size == 192
    asked = []
    monkeypatch.setattr(full_size, "untrained_2b", lambda *given: asked.append(given) or untrained_nano())
    load_for_inference("2b", device="cpu")
    load_for_inference("2b", device="cpu", dtype=torch.bfloat16)
    assert asked == [(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.bfloat16)]


def test_an_unknown_device_or_model_is_refused():
    with pytest.raises(ValueError, match="--device gpu can't be used"):
        load_for_inference("nano", device="gpu")
    with pytest.raises(ValueError, match="neither a folder nor the name of a Hub repository"):
        load_for_inference("/no/such/folder", device="cpu")
