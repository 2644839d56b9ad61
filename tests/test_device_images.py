"""Images made on the device: those of the PIL path, within one of 255 levels."""

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla.nano import nano_processor
from instructvla.processing.device_images import device_pixels
from instructvla.processing.image_transforms import IMAGENET_MEAN, IMAGENET_STD, expert_view, normalized_pixels


def photo(seed: int, width: int, height: int) -> Image.Image:
    """Soft shapes with hard edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 * (1 + np.sin(x / 9.0 + seed)[..., None] * np.cos(y / 7.0)[..., None] * np.array([1, -1, 0.5]))
    waves[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("size", [56, 224, 448])
def test_pixels_are_those_of_pil_within_one_level(size, crop_pct):
    images = [photo(0, 320, 240), photo(1, 97, 200), photo(2, 320, 240), photo(3, size, size)]
    views = [expert_view(image, size, crop_pct) for image in images]
    expected = normalized_pixels(views, IMAGENET_MEAN, IMAGENET_STD)
    found = device_pixels(images, size, crop_pct, IMAGENET_MEAN, IMAGENET_STD, "cpu")
    levels = (found - expected).abs() * torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
    assert found.dtype == torch.float32 and found.shape == (4, 3, size, size)
    assert levels.max() < 1.01


def test_a_processor_with_a_pixel_device_uses_it_and_does_not_save_it():
    plain, placed = nano_processor(), nano_processor()
    placed.pixel_device = "cpu"
    image = photo(4, 160, 120)
    for make in (
        lambda processor: processor.prompt_inputs(image, "go")["pixel_values"],
        lambda processor: processor.action_inputs(image)["action_pixel_values"],
    ):
        expected, found = make(plain), make(placed)
        assert found.shape == expected.shape and not torch.equal(found, expected)
        assert (found - expected).abs().max() < 1.01 / 255 / 0.2
    assert "pixel_device" not in placed.to_dict()
    assert plain.pixel_device is None
