"""Stage 0: both towers learn from conversations about pictures, each from every second picture."""

import pytest
import torch

from instructvla.nano import untrained_nano
from instructvla.training.tower_pretraining import both_towers, check_towers

TOWERS = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "action_vision_config": {"embed_dim": 32, "depth": 2, "num_heads": 2, "image_size": 32, "patch_size": 8},
    "adapter_config": {"experts": 1},
}


def test_every_second_picture_goes_through_the_action_experts_tower():
    model = untrained_nano(**TOWERS)
    pictures = torch.rand(5, 3, 32, 32) * 2 - 1
    features = both_towers(model, pictures)
    assert features.shape == (5, model.config.num_image_tokens, 192)
    torch.testing.assert_close(features[0::2], model.encode_images(pictures[0::2]))
    features.sum().backward()
    assert model.action_expert.vision.patch_embed.proj.weight.grad.abs().sum() > 0
    assert model.vision_model.embeddings.patch_embedding.weight.grad.abs().sum() > 0


def test_the_action_experts_tower_sees_the_picture_as_it_will_when_it_acts():
    """ImageNet's normalisation of the same pixels, and a latent action of zeros."""
    model = untrained_nano(**TOWERS)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    imagenet = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = model.projector(model.action_expert.vision(imagenet, torch.zeros(2, 1, 192)))
    torch.testing.assert_close(both_towers(model, pixels * 2 - 1)[1], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (None, "action_vision_config is null"),
        ({"embed_dim": 48}, "hidden_size is 32 and action_vision_config.embed_dim is 48"),
        ({"image_size": 48}, "image_size is 32 and action_vision_config.image_size is 48"),
    ],
)
def test_towers_that_can_not_stand_for_each_other_are_refused(tower, message):
    tower = None if tower is None else TOWERS["action_vision_config"] | tower
    with pytest.raises(ValueError, match=message):
        check_towers(untrained_nano(**(TOWERS | {"action_vision_config": tower})))
