"""Image augmentation of the released recipe: a random crop, then brightness, contrast, saturation and hue.

They are TensorFlow's operations, with which the released weights were trained: brightness is *added*,
contrast is about each channel's own mean, saturation scales the S of HSV. torchvision's of the same names differ.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from instructvla.training.data.mixture import FrameSample


@dataclass(frozen=True)
class AugmentationDraw:
    """What is done to one picture.

    Args:
        side: of the crop, as a share of the picture's width and height.
        left: of the crop, 0 to 1 − side.
        top: of the crop, 0 to 1 − side.
        brightness: added to every channel; pixels are 0 to 1.
        contrast: factor about the channel's mean.
        saturation: factor on HSV's S.
        hue: added to HSV's H, in turns.
    """

    side: float = 1.0
    left: float = 0.0
    top: float = 0.0
    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


@dataclass(frozen=True)
class ImageAugmentation:
    """How strongly pictures are augmented; the defaults are the released recipe's.

    Args:
        crop_area: share of the picture that is kept, above 0 to 1; the crop has the picture's own shape.
        brightness: largest change, 0 to 1.
        contrast: smallest and largest factor.
        saturation: smallest and largest factor.
        hue: largest change, 0 to 0.5 turns.

    Raises:
        ValueError: a strength outside its range.
    """

    crop_area: float = 0.9
    brightness: float = 0.2
    contrast: tuple[float, float] = (0.8, 1.2)
    saturation: tuple[float, float] = (0.8, 1.2)
    hue: float = 0.05

    def __post_init__(self):
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"crop_area is {self.crop_area}; give a share of the picture above 0, at most 1")
        for name, highest in (("brightness", 1), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= highest:
                raise ValueError(f"{name} is {getattr(self, name)}; give the largest change, 0 to {highest}")
        for name in ("contrast", "saturation"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < math.inf:
                raise ValueError(f"{name} is {(low, high)}; give the smallest and the largest factor, 0 or more")

    def draw(self, generator: np.random.Generator) -> AugmentationDraw:
        """One draw, each part independent of the others.

        The authors' pipeline gives all parts one seed, for which TensorFlow draws the same number: there the brightest
        pictures are also those of the highest contrast, cropped at the lower right.
        """
        left, top, brightness, contrast, saturation, hue = generator.random(6).tolist()
        side = math.sqrt(self.crop_area)
        return AugmentationDraw(
            side=side,
            left=left * (1 - side),
            top=top * (1 - side),
            brightness=_between(-self.brightness, self.brightness, brightness),
            contrast=_between(*self.contrast, contrast),
            saturation=_between(*self.saturation, saturation),
            hue=_between(-self.hue, self.hue, hue),
        )


def augment_frame(
    sample: FrameSample, images: Mapping[str, Image.Image], augmentation: ImageAugmentation, seed: int = 0
) -> dict[str, Image.Image]:
    """The sample's decoded pictures, augmented before either vision tower sees them, so that both see the same.

    The draw depends on the seed, the epoch, the episode, the frame and the camera only: cameras differ from each other
    as in the released recipe, epochs too, and a resumed run draws what the uninterrupted one would have drawn.

    Args:
        sample: the frame.
        images: camera → RGB picture of any size.
        augmentation: its strengths.
        seed: of all draws, 0 or more.
    """
    return {
        camera: augment(image, augmentation.draw(_generator(sample, camera, seed))) for camera, image in images.items()
    }


def augment(image: Image.Image, draw: AugmentationDraw) -> Image.Image:
    """An RGB picture, cropped and scaled back to its size, then recoloured; channels are clipped after each step."""
    image = _crop(image, draw)
    curves = _brightness_and_contrast(image, draw.brightness, draw.contrast)
    pixels = np.empty((3, image.height, image.width), np.float32)
    for channel, plane, curve in zip(pixels, image.split(), curves, strict=True):
        np.take(curve, np.asarray(plane), out=channel, mode="clip")  # "clip" is the mode that needs no buffer
    _recolour(pixels, draw.saturation, draw.hue)
    pixels += 0.5  # rounds, since the conversion truncates
    return Image.merge("RGB", [Image.fromarray(channel) for channel in pixels.astype(np.uint8)])


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _generator(sample: FrameSample, camera: str, seed: int) -> np.random.Generator:
    key = hashlib.sha256(f"{sample.name}\0{camera}".encode()).digest()
    return np.random.default_rng([seed, sample.epoch, *np.frombuffer(key, np.uint32).tolist()])


def _crop(image: Image.Image, draw: AugmentationDraw) -> Image.Image:
    """Bilinear, the corners' pixel centres on the crop's corners as in TensorFlow's `crop_and_resize`."""
    if draw.side == 1:
        return image
    start = [
        share * (size - 1) + (1 - draw.side) / 2 for share, size in zip((draw.left, draw.top), image.size, strict=True)
    ]
    end = [first + draw.side * size for first, size in zip(start, image.size, strict=True)]
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(*start, *end))


def _brightness_and_contrast(image: Image.Image, brightness: float, contrast: float) -> np.ndarray:
    """What becomes of each of the 256 levels of each channel, (3, 256) float32, 0 to 255: both steps are pointwise."""
    curve = np.clip(np.arange(256) + 255 * brightness, 0, 255)
    levels = np.reshape(image.histogram(), (3, 256))
    mean = (levels @ curve / levels.sum(axis=1))[:, None]
    return np.clip(mean + contrast * (curve - mean), 0, 255).astype(np.float32)


def _recolour(pixels: np.ndarray, saturation: float, hue: float) -> None:
    """HSV's S times `saturation`, at most 1, and its H turned by `hue`, at the same V; in place.

    Args:
        pixels: (3, height, width) float32, 0 or more.
    """
    value = pixels.max(axis=0)
    chroma = value - pixels.min(axis=0)
    sector = _hue(pixels, value, chroma)
    sector += 6 * hue
    chroma = np.minimum(chroma * np.float32(saturation), value)
    for channel, shift in zip(pixels, (5, 3, 1), strict=True):
        # Each channel lies below V by a share of the chroma: a trapezoid wave of the hue, a third of a turn apart.
        wave = sector + np.float32(shift)
        wave -= 6 * np.floor(wave * np.float32(1 / 6))
        np.subtract(2, np.abs(wave - 2), out=wave)
        np.clip(wave, 0, 1, out=wave)
        wave *= chroma
        np.subtract(value, wave, out=channel)


def _hue(pixels: np.ndarray, value: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """HSV's H in sixths of a turn, (height, width), −1 to 5; 0 where there is no colour."""
    red, green, blue = pixels
    scale = 1 / np.maximum(chroma, np.float32(1e-9))
    sector = np.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale)
    np.copyto(sector, (green - blue) * scale, where=value == red)
    return sector
