"""Pixel shuffle and projector against the authors' numbers."""

import torch

from instructvla.vision_projector import VisionProjector, pixel_shuffle
from tests.parity import load_fixture


def test_pixel_shuffle_has_the_authors_order():
    tensors, _ = load_fixture("eagle_vlm")
    assert torch.equal(pixel_shuffle(tensors["pixel_shuffle.in"], 2), tensors["pixel_shuffle.out"])


def test_projector_turns_a_square_of_patches_into_a_quarter_of_the_tokens():
    projector = VisionProjector(vision_size=6, text_size=10, downsample_ratio=0.5)
    assert projector(torch.randn(3, 64, 6)).shape == (3, 16, 10)


def test_projector_folds_neighbouring_patches_together():
    projector = VisionProjector(vision_size=4, text_size=8, downsample_ratio=0.5)
    patches = torch.randn(1, 16, 4)
    changed = patches.clone()
    changed[0, 0] += 1.0  # the top left patch belongs to the first token
    moved = (projector(changed) - projector(patches)).abs().sum(dim=-1)[0]
    assert moved[0] > 0
    assert torch.equal(moved[1:], torch.zeros(3))
