"""Claims about where and as what a model runs."""

import pytest
import torch

from instructvla import full_size
from instructvla.evaluation.inference_model import computing_type, load_for_inference
from instructvla.nano import untrained_nano


@pytest.mark.parametrize(
    ("precision", "found"), [(None, torch.float32), ("bf16", torch.bfloat16), ("int8", torch.float32)]
)
def test_on_a_cpu_a_checkpoint_is_float32_unless_another_type_is_asked_for(tmp_path, precision, found):
    untrained_nano().to(torch.bfloat16).save_pretrained(tmp_path)
    model = load_for_inference(str(tmp_path), device="cpu", precision=precision)
    assert model.quantized == ("int8" if precision == "int8" else None)
    assert model.dtype is found and not model.training and model.processor.pixel_device is None


def test_models_without_training_go_by_name(monkeypatch):
    assert load_for_inference("nano", device="cpu").config.text_config.hidden_size == 192
    assert load_for_inference("mid", device="cpu").config.text_config.hidden_size == 512
    asked = []
    monkeypatch.setattr(full_size, "untrained_2b", lambda *given: asked.append(given) or untrained_nano())
    load_for_inference("2b", device="cpu")
    load_for_inference("2b", device="cpu", precision="bf16")
    assert asked == [(torch.device("cpu"), torch.float32), (torch.device("cpu"), torch.bfloat16)]


def test_elsewhere_a_checkpoint_keeps_its_type_and_bfloat16_surrounds_8_bits():
    cuda = torch.device("cuda")
    assert [computing_type(name, cuda) for name in (None, "int8", "fp8", "fp16")] == [
        None,
        torch.bfloat16,
        torch.bfloat16,
        torch.float16,
    ]


def test_an_unknown_device_model_or_precision_is_refused():
    with pytest.raises(ValueError, match="on a CPU device it must be one of fp32, bf16, fp16, int8"):
        load_for_inference("nano", device="cpu", precision="int4")
    with pytest.raises(ValueError, match="--device gpu can't be used"):
        load_for_inference("nano", device="gpu")
    with pytest.raises(ValueError, match="neither a folder nor the name of a Hub repository"):
        load_for_inference("/no/such/folder", device="cpu")
