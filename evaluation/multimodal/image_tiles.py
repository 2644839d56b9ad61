"""Large pictures as several square tiles and a thumbnail, as the VLM reads documents (Eagle2; released evaluation)."""

from dataclasses import dataclass

from PIL import Image

from instructvla.processing.image_transforms import squash

ENOUGH_COVERAGE = 0.6  # tiles of this share of the picture's pixels are as good as more of them


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Args:
        max_tiles: of one picture; 1 squashes it to one square, as the model sees a robot's cameras.
        enlarge: factor of its sides before the number of tiles is chosen.

    Raises:
        ValueError: a number that is no integer of at least 1.
    """

    max_tiles: int = 1
    enlarge: int = 1

    def __post_init__(self):
        for name in ("max_tiles", "enlarge"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}, but it must be an integer of at least 1.")


def image_tiles(image: Image.Image, tiling: Tiling, size: int) -> list[Image.Image]:
    """The tiles row by row and, where there are several, the whole picture after them.

    Args:
        image: RGB.
        tiling: how it is cut.
        size: side of a tile, in pixels.
    """
    if tiling.enlarge > 1:
        image = image.resize((image.width * tiling.enlarge, image.height * tiling.enlarge), Image.Resampling.BILINEAR)
    columns, rows = tile_grid(image.width, image.height, tiling.max_tiles, size)
    whole = image.resize((columns * size, rows * size), Image.Resampling.BICUBIC)
    tiles = [
        whole.crop((left, top, left + size, top + size))
        for top in range(0, whole.height, size)
        for left in range(0, whole.width, size)
    ]
    return tiles if len(tiles) == 1 else [*tiles, squash(image, size)]


def tile_grid(width: int, height: int, max_tiles: int, size: int) -> tuple[int, int]:
    """Columns and rows of the tiles that keep the picture's shape and pixels best; the fewest where several do."""

    def fit(grid: tuple[int, int]) -> float:
        columns, rows = grid
        coverage = min(columns * rows * size**2 / (width * height), ENOUGH_COVERAGE)
        shape, wanted = columns / rows, width / height
        return coverage * min(shape / wanted, wanted / shape)

    grids = [(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1)]
    return max(sorted(grids, key=lambda grid: grid[0] * grid[1]), key=fit)
