"""The convolutional stem: shapes, where it stands, and how strong its signals are."""

import pytest
import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.convolutional_stem import ConvolutionalStem
from instructvla.nano import random_model, untrained_nano

STEM = {
    "vision_config": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 16,
        "image_size": 64,
    },
    "action_vision_config": {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16, "image_size": 64},
    "stem_channels": [8, 16, 24],
}


def test_each_convolution_halves_the_picture():
    stem = ConvolutionalStem([8, 16, 24], 32)
    assert stem(torch.zeros(2, 3, 64, 48)).shape == (2, 32, 4, 3)


def test_both_towers_make_their_patches_by_it():
    model = untrained_nano(**STEM)
    towers = (model.vision_model.embeddings.patch_embedding, model.action_expert.vision.patch_embed.proj)
    assert [stem.weight.shape for stem in towers] == [(128, 24, 3, 3), (32, 24, 3, 3)]
    assert model.encode_images(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 192)


def test_signals_keep_their_size():
    """The first activations of a new stem are of the size of its input's: within a factor of 3."""
    config = InstructVLAConfig.nano(**STEM)
    stem = random_model(config, 0).vision_model.embeddings.patch_embedding
    features = stem(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert 1 / 3 < features.std() < 3


def test_a_checkpoint_with_stems_gives_the_same_features(tmp_path):
    model = untrained_nano(**STEM)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.encode_images(pixels), model.encode_images(pixels))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem_channels": []}, r"stem_channels is \[\]"),
        ({"stem_channels": [8, 0, 24]}, "list of integers above 0"),
        ({"stem_channels": [8, 16]}, "vision_config.patch_size is 16, but it must be 8"),
        ({"action_vision_config": {"patch_size": 8, "image_size": 64}}, "action_vision_config.patch_size is 8"),
    ],
)
def test_a_stem_that_makes_other_patches_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InstructVLAConfig.nano(**(STEM | fields))
