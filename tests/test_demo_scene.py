"""Claims about the drawn tabletop that the demo uses when no picture is given."""

import numpy as np
import pytest

from instructvla.evaluation.demo_scene import draw_tabletop_scene


def test_one_seed_always_gives_the_same_picture():
    assert draw_tabletop_scene(seed=3).tobytes() == draw_tabletop_scene(seed=3).tobytes()


def test_another_seed_moves_the_objects():
    first, second = (np.asarray(draw_tabletop_scene(seed=seed)).astype(int) for seed in (0, 1))
    assert np.abs(first - second).mean() > 10


@pytest.mark.parametrize("size", [112, 256])
def test_the_picture_is_square_rgb_of_the_asked_size(size):
    scene = draw_tabletop_scene(size=size)
    assert (scene.mode, scene.size) == ("RGB", (size, size))


def test_the_towel_the_spoon_and_the_sponge_stand_out_from_the_wood():
    hue, saturation, value = np.asarray(draw_tabletop_scene(seed=0).convert("HSV"), dtype=int).transpose(2, 0, 1)
    sponge = (hue > 28) & (hue < 42) & (saturation > 120) & (value > 180)
    steel = (saturation < 40) & (value > 110)
    towel = ((hue < 8) | (hue > 245)) & (saturation > 120)
    assert all(0.01 < mask.mean() < 0.3 for mask in (sponge, steel, towel))
