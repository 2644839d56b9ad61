"""Tiling: shapes and pixels are kept, the thumbnail comes last, and small numbers change nothing."""

import numpy as np
import pytest
from PIL import Image

from instructvla.evaluation.multimodal.image_tiles import Tiling, image_tiles, tile_grid
from instructvla.processing.image_transforms import squash
from tests.training_batch import picture


@pytest.mark.parametrize(
    ("width", "height", "max_tiles", "grid"),
    [
        (448, 448, 12, (1, 1)),
        (896, 448, 12, (2, 1)),
        (1700, 2200, 18, (3, 4)),
        (1700, 2200, 6, (2, 3)),
        (3000, 300, 6, (6, 1)),
        (5000, 5000, 1, (1, 1)),
    ],
)
def test_the_grid_keeps_the_pictures_shape_within_the_limit(width, height, max_tiles, grid):
    assert tile_grid(width, height, max_tiles, size=448) == grid


def test_tiles_put_together_are_the_resized_picture():
    image = picture(width=80, height=40)
    left, right, thumbnail = image_tiles(image, Tiling(max_tiles=2), size=32)
    together = np.concatenate([np.asarray(left), np.asarray(right)], axis=1)
    assert np.array_equal(together, np.asarray(image.resize((64, 32), Image.Resampling.BICUBIC)))
    assert np.array_equal(np.asarray(thumbnail), np.asarray(squash(image, 32)))


def test_tiles_come_row_by_row():
    image = Image.new("RGB", (64, 64))
    image.paste("red", (32, 0, 64, 32))
    image.paste("blue", (0, 32, 32, 64))
    tiles = image_tiles(image, Tiling(max_tiles=4), size=32)
    colours = [tile.getpixel((16, 16)) for tile in tiles[:4]]
    assert colours == [(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 0)]


def test_one_tile_is_what_the_model_sees_of_a_camera():
    (tile,) = image_tiles(picture(), Tiling(), size=32)
    assert np.array_equal(np.asarray(tile), np.asarray(squash(picture(), 32)))


def test_an_enlarged_picture_gets_more_tiles():
    image = picture(width=40, height=40)
    assert len(image_tiles(image, Tiling(max_tiles=6), size=32)) == 1
    assert len(image_tiles(image, Tiling(max_tiles=6, enlarge=2), size=32)) == 5


@pytest.mark.parametrize("field", ["max_tiles", "enlarge"])
@pytest.mark.parametrize("value", [0, 1.5, "6", True])
def test_a_number_of_tiles_that_is_none_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}"):
        Tiling(**{field: value})
