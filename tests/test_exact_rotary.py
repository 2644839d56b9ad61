"""Rotary frequencies stay float32 whatever the model is cast to."""

import torch

from instructvla.exact_rotary import ExactRotaryEmbedding
from instructvla.nano import untrained_nano


def test_casting_the_model_leaves_the_frequencies_exact():
    model = untrained_nano()
    rotaries = [module for module in model.modules() if isinstance(module, ExactRotaryEmbedding)]
    before = [rotary.inv_freq.clone() for rotary in rotaries]
    model.to(torch.bfloat16)
    assert len(rotaries) == 2
    for rotary, frequencies in zip(rotaries, before, strict=True):
        assert rotary.inv_freq.dtype == torch.float32
        assert torch.equal(rotary.inv_freq, frequencies)


def test_a_model_on_the_meta_device_can_be_emptied_onto_the_cpu():
    with torch.device("meta"):
        rotary = ExactRotaryEmbedding(config=untrained_nano().config.text_config)
    assert rotary.to_empty(device="cpu").inv_freq.device.type == "cpu"
