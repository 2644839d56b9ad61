"""Camera frames as the released policies saw them in simulation: LIBERO's frame and SimplerEnv's centre crop.

The released evaluation prepares frames with TensorFlow; these are the same operations in numpy and PIL, within one
level of 255.
Images are `(height, width, 3)` uint8 RGB; anything else raises `ValueError`.
"""

from io import BytesIO

import numpy as np
from PIL import Image

POLICY_IMAGE_SIZE = 224
CROP_AREA = 0.9


def libero_frame(image: np.ndarray) -> np.ndarray:
    """LIBERO camera image as rendered, third-person or wrist, to the policy's frame `(224, 224, 3)`.

    Rotates by 180°, compresses to JPEG and back, resizes by Lanczos, and takes the 0.9-area centre crop.
    """
    upright = _checked(image)[::-1, ::-1]
    return center_crop(resize_lanczos3(jpeg_round_trip(upright)))


def center_crop(image: np.ndarray, area: float = CROP_AREA, size: int = POLICY_IMAGE_SIZE) -> np.ndarray:
    """Central crop of `area` of the image (√area of each side), resized bilinearly to `(size, size, 3)`.

    Equals bilinear `tf.image.crop_and_resize` of the image in [0, 1] (corner samples on the crop's corners), then
    TensorFlow's conversion to uint8, floor(255.5·x). In SimplerEnv only the released policies without state use it.
    """
    if not 0 < area <= 1:
        raise ValueError(f"Crop area must be in (0, 1], got {area}; the released evaluation uses {CROP_AREA}.")
    if size < 2:
        raise ValueError(
            f"Crop size must be at least 2 pixels, got {size}; the released policies use {POLICY_IMAGE_SIZE}."
        )
    pixels = _checked(image).astype(np.float32) * np.float32(1 / 255)
    for axis in (1, 0):
        low, high, fraction = _crop_samples(pixels.shape[axis], area, size)
        first, second = pixels.take(low, axis), pixels.take(high, axis)
        pixels = first + (second - first) * np.expand_dims(fraction, (1 - axis, 2))
    return np.minimum(np.floor(pixels.clip(0, 1) * np.float32(255.5)), 255).astype(np.uint8)


def resize_lanczos3(image: np.ndarray, size: int = POLICY_IMAGE_SIZE) -> np.ndarray:
    """Resize to `(size, size, 3)` as `tf.image.resize` does with `lanczos3` and anti-aliasing.

    Channels are resized as float images: PIL's uint8 path rounds and clips between its two passes.
    """
    channels = [Image.fromarray(channel) for channel in np.moveaxis(_checked(image).astype(np.float32), -1, 0)]
    resized = [np.asarray(channel.resize((size, size), Image.Resampling.LANCZOS)) for channel in channels]
    return np.rint(np.stack(resized, axis=-1)).clip(0, 255).astype(np.uint8)


def jpeg_round_trip(image: np.ndarray) -> np.ndarray:
    """Encode as JPEG (quality 95, chroma 4:2:0) and decode as TensorFlow does by default; shape and type stay.

    TensorFlow decodes with libjpeg's fast inverse DCT, which differs from PIL's accurate one by several levels. PIL
    offers the fast one only with replicated chroma, so chroma is smoothed and converted to RGB here.
    """
    buffer = BytesIO()
    Image.fromarray(_checked(image)).save(buffer, "JPEG", quality=95, subsampling="4:2:0")
    decoded = Image.open(buffer)
    decoded.draft("YCbCr", None)
    decoded.decoderconfig = (1, 1)  # full scale, fastest decoding
    luma, *chroma = np.moveaxis(np.asarray(decoded).astype(np.int32), -1, 0)
    height, width = luma.shape
    blue, red = (_upsample_chroma(plane[::2, ::2])[:height, :width] - 128 for plane in chroma)
    rgb = [  # ITU-R BT.601, 16-bit fixed point with libjpeg's rounding
        luma + (91881 * red + 32768 >> 16),
        luma + (-22554 * blue - 46802 * red + 32768 >> 16),
        luma + (116130 * blue + 32768 >> 16),
    ]
    return np.stack(rgb, axis=-1).clip(0, 255).astype(np.uint8)


def _upsample_chroma(plane: np.ndarray) -> np.ndarray:
    """Double both sides of an int plane with libjpeg's triangle filter: 3/4 nearest, 1/4 next, alternating rounding."""
    padded = np.pad(plane, 1, mode="edge")
    center = 3 * padded[1:-1]
    rows = np.stack([center + padded[:-2], center + padded[2:]], axis=1).reshape(-1, padded.shape[1])
    center = 3 * rows[:, 1:-1]
    columns = [center + rows[:, :-2] + 8 >> 4, center + rows[:, 2:] + 7 >> 4]
    return np.stack(columns, axis=2).reshape(len(rows), -1)


def _crop_samples(length: int, area: float, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` samples along one side: the pixels before and after it, and its fraction between them."""
    side = np.sqrt(np.float32(area))
    start = (1 - side) / 2
    step = side * (length - 1) / (size - 1)
    position = start * (length - 1) + np.arange(size, dtype=np.float32) * step
    low = np.floor(position).astype(int)
    return low, np.minimum(low + 1, length - 1), (position - low).astype(np.float32)


def _checked(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = f"{image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"A camera image must be a uint8 numpy array, got {given}; convert it to levels 0-255 first.")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"A camera image must have shape (height, width, 3), got {image.shape}; pass one RGB frame.")
    return image
