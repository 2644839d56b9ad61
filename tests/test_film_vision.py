"""The FiLM-conditioned DINOv2 against the authors' numbers."""

from functools import partial

import pytest
import timm
import torch
from torch.utils.checkpoint import checkpoint

from instructvla.configuration_sections import ActionVisionConfig
from instructvla.film_vision import FiLMVisionTransformer
from instructvla.nano import untrained_nano
from tests.parity import action_weights, load_fixture, relative_error


def golden_tower(feature_layer: int) -> tuple[FiLMVisionTransformer, dict[str, torch.Tensor]]:
    tensors, meta = load_fixture("film_vit")
    vit = meta["config"]["vit"]
    config = ActionVisionConfig(
        embed_dim=vit["dim"],
        depth=vit["depth"],
        num_heads=vit["heads"],
        image_size=vit["img"],
        num_register_tokens=vit["reg_tokens"],
        feature_layer=feature_layer,
    )
    tower = FiLMVisionTransformer(config, meta["config"]["cond_dim"]).eval()
    later_blocks = "|".join(str(i) for i in range(feature_layer + 1, vit["depth"])) or "none"
    named = {key.replace("weights.vision", "weights.film_vision_model.vision"): value for key, value in tensors.items()}
    state = action_weights(named, unused=rf"vision\.(norm\.|blocks\.({later_blocks})\.)")
    tower.load_state_dict({key.removeprefix("vision."): value for key, value in state.items()}, strict=True)
    return tower, tensors


@pytest.mark.parametrize("feature_layer", range(5))
@torch.no_grad()
def test_every_block_equals_the_authors(feature_layer):
    tower, tensors = golden_tower(feature_layer)
    features = tower(tensors["in.pixel_values"], tensors["in.conditioning"])
    expected = tensors["out.all_block_outputs"][feature_layer][:, 5:]
    assert relative_error(features, expected) < 1e-4
    if feature_layer == 2:
        assert relative_error(features, tensors["out.features"]) < 1e-4


@torch.no_grad()
def test_unmodulated_tower_is_timms_dinov2():
    torch.manual_seed(0)
    reference = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, num_classes=0, depth=3).eval()
    config = ActionVisionConfig(embed_dim=384, depth=3, num_heads=6, image_size=56, feature_layer=2)
    tower = FiLMVisionTransformer(config, condition_size=8).eval()
    film = {name: torch.zeros_like(value) for name, value in tower.state_dict().items() if "film" in name}
    tower.load_state_dict(film, strict=False)
    loading = tower.load_state_dict(reference.state_dict(), strict=False)
    assert all("film" in name for name in loading.missing_keys)
    assert loading.unexpected_keys == ["norm.weight", "norm.bias"]
    images = torch.randn(2, 3, 56, 56)
    expected = reference.get_intermediate_layers(images, n=1, norm=False)[0]
    torch.testing.assert_close(tower(images, torch.randn(2, 4, 8)), expected, rtol=1e-5, atol=1e-5)


def test_a_new_models_tower_is_not_modulated():
    tower = untrained_nano().action_expert.vision
    film = [value for name, value in tower.named_parameters() if "film" in name]
    assert len(film) == 4 * len(tower.blocks)
    assert all(value.abs().max() == 0 for value in film)
    assert all((block.ls1.gamma == 1e-5).all() for block in tower.blocks)


def test_gradient_checkpointing_changes_no_gradient():
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        tower, tensors = golden_tower(2)
        tower.train()
        for block in tower.blocks:
            block.gradient_checkpointing = checkpointing
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        condition = tensors["in.conditioning"].clone().requires_grad_()
        tower(tensors["in.pixel_values"], condition).square().sum().backward()
        return [condition.grad, *(parameter.grad for parameter in tower.parameters())]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed)
