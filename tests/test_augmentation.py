"""Claims about image augmentation: TensorFlow's operations, in the released order, by a draw that can be repeated."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from instructvla.training.data.augmentation import AugmentationDraw, ImageAugmentation, augment, augment_frame
from instructvla.training.data.mixture import frame_sample
from tests.made_episodes import MadeEpisodes
from tests.tiny_processor import tiny_processor

TENSORFLOW = json.loads((Path(__file__).parent / "fixtures" / "tensorflow_augmentation.json").read_text())
NOTHING = ImageAugmentation(crop_area=1, brightness=0, contrast=(1, 1), saturation=(1, 1), hue=0)
SAMPLE = frame_sample(MadeEpisodes("bridge", [5])[0], 2, horizon=4)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8))
    return coarse.resize((120, 90), Image.Resampling.BICUBIC)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64)


@pytest.mark.parametrize("name", TENSORFLOW["results"])
def test_each_operation_and_all_of_them_are_tensorflow_s(name):
    result = TENSORFLOW["results"][name]
    got = array(augment(Image.fromarray(np.array(TENSORFLOW["pixels"], np.uint8)), AugmentationDraw(**result["draw"])))
    # Rounding is half a level; Pillow rounds after the crop too, which contrast then stretches.
    tolerance = {"crop": 1.0, "all": 2.5}.get(name, 0.51)
    np.testing.assert_allclose(got, result["pixels"], atol=tolerance)
    assert abs((got - result["pixels"]).mean()) < 0.25


@pytest.mark.parametrize("hue", [-0.5, -0.3, -0.05, 0.02, 0.05, 0.4])
def test_hue_is_torchvision_s(picture, hue):
    expected = functional.adjust_hue_image(torch.from_numpy(array(picture) / 255).float().permute(2, 0, 1), hue)
    got = array(augment(picture, AugmentationDraw(hue=hue)))
    np.testing.assert_allclose(got, 255 * expected.permute(1, 2, 0).numpy(), atol=0.51)


def test_contrast_of_a_grey_picture_is_torchvision_s(picture):
    """On grey the mean of a channel is the mean of the grey levels that torchvision takes."""
    grey = picture.convert("L").convert("RGB")
    expected = functional.adjust_contrast_image(torch.from_numpy(array(grey) / 255).float().permute(2, 0, 1), 0.8)
    got = array(augment(grey, AugmentationDraw(contrast=0.8)))
    np.testing.assert_allclose(got, 255 * expected.permute(1, 2, 0).numpy(), atol=0.6)


def test_brightness_is_added_and_clipped(picture):
    got = array(augment(picture, AugmentationDraw(brightness=-0.2)))
    np.testing.assert_array_equal(got, np.maximum(array(picture) - 51, 0))


@pytest.mark.parametrize("saturation", [0.0, 0.8, 1.2, 50.0])
def test_saturation_keeps_the_value_and_leaves_grey_alone(picture, saturation):
    got = array(augment(picture, AugmentationDraw(saturation=saturation)))
    np.testing.assert_array_equal(got.max(axis=2), array(picture).max(axis=2))
    grey = picture.convert("L").convert("RGB")
    np.testing.assert_array_equal(array(augment(grey, AugmentationDraw(saturation=saturation))), array(grey))


def test_zero_strength_changes_no_pixel():
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8))
    draw = NOTHING.draw(np.random.default_rng(2))
    np.testing.assert_array_equal(array(augment(noise, draw)), array(noise))


def test_the_crop_keeps_the_size_and_shows_the_drawn_part():
    ramp = Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(100, axis=0))
    side = math.sqrt(0.9)
    for left in (0.0, 1 - side):
        cropped = array(augment(ramp, AugmentationDraw(side=side, left=left, top=0.02)))[50, :, 0]
        assert cropped.shape == (200,)
        assert cropped[0] == pytest.approx(199 * left, abs=1)
        assert cropped[-1] == pytest.approx(199 * (left + side), abs=1)


def test_draws_fill_the_recipe_s_ranges_and_never_leave_them():
    generator = np.random.default_rng(3)
    draws = [ImageAugmentation().draw(generator) for _ in range(2000)]
    side = math.sqrt(0.9)
    ranges = {
        "left": (0, 1 - side),
        "top": (0, 1 - side),
        "brightness": (-0.2, 0.2),
        "contrast": (0.8, 1.2),
        "saturation": (0.8, 1.2),
        "hue": (-0.05, 0.05),
    }
    assert {draw.side for draw in draws} == {side}
    for name, (low, high) in ranges.items():
        values = [getattr(draw, name) for draw in draws]
        assert low <= min(values) and max(values) <= high
        assert max(values) - min(values) > 0.99 * (high - low)
    parts = np.array([[getattr(draw, name) for name in ranges] for draw in draws])
    assert abs(np.corrcoef(parts.T) - np.eye(len(ranges))).max() < 0.1


def test_a_frame_s_draw_repeats_and_changes_with_everything_that_names_it(picture):
    def augmented(seed=0, camera="primary", **changes):
        return augment_frame(replace(SAMPLE, **changes), {camera: picture}, ImageAugmentation(), seed)[camera].tobytes()

    assert augmented() == augmented()
    others = [
        augmented(seed=1),
        augmented(camera="wrist"),
        augmented(epoch=1),
        augmented(frame_index=3),
        augmented(episode_id="1"),
        augmented(dataset="fractal"),
        augmented(file_path="other/out.npy"),  # Bridge's ids count anew in every file
    ]
    assert len({augmented(), *others}) == 8


def test_both_towers_see_the_same_augmented_picture(picture):
    """What the augmentation returns goes through both towers' transforms, of one size here."""
    processor = tiny_processor(action_crop_pct=1.0)
    camera = processor.cameras[0]
    views = augment_frame(SAMPLE, {camera: picture}, ImageAugmentation())
    batch = processor(images=views, text="pick up the cup", return_tensors="pt")
    assert not np.array_equal(array(views[camera]), array(picture))
    for pixels, mean, std in (
        (batch["pixel_values"][0], 0.5, 0.5),
        (batch["action_pixel_values"][0, 0], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ):
        size = pixels.shape[-1]
        expected = array(views[camera].resize((size, size), Image.Resampling.BICUBIC)) / 255
        restored = pixels.permute(1, 2, 0).numpy() * np.array(std) + np.array(mean)
        np.testing.assert_allclose(restored, expected, atol=1e-5)


@pytest.mark.parametrize(
    "strengths",
    [
        {"crop_area": 0},
        {"crop_area": 1.1},
        {"brightness": -0.1},
        {"brightness": 2},
        {"hue": 0.6},
        {"contrast": (1.2, 0.8)},
        {"saturation": (-1, 1)},
        {"saturation": (1, math.inf)},
    ],
)
def test_strengths_outside_their_range_are_refused_by_name(strengths):
    with pytest.raises(ValueError, match=f"{next(iter(strengths))} is"):
        ImageAugmentation(**strengths)
