"""The towers' images made on the model's device: 8-bit pixels travel there, and are resized and normalised there."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


def device_pixels(
    images: Sequence[Image.Image],
    size: int,
    crop_pct: float,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str,
) -> torch.Tensor:
    """What the PIL path makes (`expert_view`, then `normalized_pixels`), each value within one of the 255 levels.

    Args:
        images: RGB, of any sizes; those of one size share a resize.
        size, crop_pct: as of `expert_view`.

    Returns:
        (len(images), 3, size, size) float32 on the device.
    """
    resized: dict[int, torch.Tensor] = {}
    for shape in {image.size for image in images}:
        numbers = [number for number, image in enumerate(images) if image.size == shape]
        stacked = torch.from_numpy(np.stack([np.asarray(images[number]) for number in numbers]))
        views = square(stacked.to(device, non_blocking=True).permute(0, 3, 1, 2), size, crop_pct)
        resized.update(zip(numbers, views, strict=True))
    levels = torch.stack([resized[number] for number in range(len(images))])
    shift, scale = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    return (levels / 255 - shift) / scale


def square(images: torch.Tensor, size: int, crop_pct: float) -> torch.Tensor:
    """(count, 3, height, width) uint8 → (count, 3, size, size) float32 levels: squashed, or the short side
    resized and the centre cropped, with the rounding of `resize_and_crop`."""
    if crop_pct == 1.0:
        return bicubic(images, size, size)
    short, sides = int(size / crop_pct), images.shape[-2:]
    height, width = (int(short * side / min(sides)) for side in sides)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return bicubic(images, height, width)[..., top : top + size, left : left + size]


def bicubic(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Antialiased, as Pillow's: first along the rows, whose result is rounded and cut to 8 bits, then along columns."""
    levels = images.float()
    for sides in ([images.shape[-2], width], [height, width]):
        levels = F.interpolate(levels, sides, mode="bicubic", antialias=True).round().clamp(0, 255)
    return levels
