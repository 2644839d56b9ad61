"""Camera images: decoding, sorting into samples, and the geometry of the two vision towers (paper §5)."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from transformers.image_utils import load_image

from .action_normalization import nearest

VLM_MEAN = VLM_STD = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What Pillow raises on truncated, corrupt or oversized files, whatever the format.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# 16- and 32-bit modes (also "I;16" and its byte orders), which conversion to RGB would saturate.
DEEP_MODES = ("I", "F")
CHANNELS = (1, 3, 4)
MAX_ASPECT_RATIO = 1000  # the released crop enlarges the short side first: beyond this it would take gigabytes


def to_rgb(image: Any, name: str = "image") -> Image.Image:
    """Any accepted image as an RGB PIL image; a PIL RGB image without EXIF rotation comes back as it is, not copied.

    Args:
        image: PIL image of any 8-bit mode (alpha is dropped, EXIF orientation applied), or a NumPy array or torch
            tensor of shape `(H, W)`, `(H, W, C)` or `(C, H, W)`, C in {1, 3, 4}, uint8 or float in [0, 1].
        name: what error messages call the image.

    Raises:
        ValueError: unsupported type, shape, dtype or value range, zero size, or an image file that can't be decoded.
    """
    if isinstance(image, Image.Image):
        return _decode_pil(image, name)
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float().numpy() if image.is_floating_point() else image.numpy()
    if isinstance(image, np.ndarray):
        return _decode_array(image, name)
    raise ValueError(f"{name} is a {type(image).__name__}; give a PIL image, a NumPy array or a torch tensor")


def _decode_pil(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"{name} has zero size: {image.width} x {image.height} pixels")
    if image.mode.split(";")[0] in DEEP_MODES:
        raise ValueError(
            f"{name} has mode {image.mode!r}, more than 8 bits a channel; scale it to uint8 in 0..255 first"
        )
    try:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} can't be decoded, the file is truncated, corrupt or too large: {error}") from error


def _decode_array(array: np.ndarray, name: str) -> Image.Image:
    if array.size == 0:
        raise ValueError(f"{name} has zero size: shape {array.shape}")
    if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, -1)  # (H, W, C)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[-1] not in CHANNELS):
        raise ValueError(f"{name} has shape {array.shape}; give (H, W), (H, W, C) or (C, H, W) with C 1, 3 or 4")
    if np.issubdtype(array.dtype, np.floating):
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # NaN fails the comparison too
            raise ValueError(
                f"{name} holds {array.dtype} values from {low:.8g} to {high:.8g}; floats must be finite and within "
                "[0, 1]: undo any normalisation, or give uint8 in 0..255"
            )
        array = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"{name} has dtype {array.dtype}; give uint8 in 0..255 or floats in [0, 1]")
    if array.ndim == 2 or array.shape[-1] == 1:
        return Image.fromarray(array.reshape(array.shape[:2])).convert("RGB")
    return Image.fromarray(array[..., :3])


def squash(image: Image.Image, size: int) -> Image.Image:
    """Bicubic (antialiased) resize to `size` x `size` pixels whatever the aspect ratio."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def resize_and_crop(image: Image.Image, size: int, crop_pct: float) -> Image.Image:
    """Short side to floor(size / crop_pct) pixels by bicubic resize, then a centre crop of `size` x `size`.

    This is the evaluation transform that timm derives from a model's `crop_pct`, rounding included.

    Raises:
        ValueError: the sides differ by more than a factor of 1000.
    """
    short = int(size / crop_pct)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise ValueError(
            f"an image of {image.width} x {image.height} pixels is too elongated to be cropped to a square"
        )
    scaled = [int(short * side / min(image.size)) for side in image.size]
    resized = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in scaled)
    return resized.crop((left, top, left + size, top + size))


def expert_view(image: Image.Image, size: int, crop_pct: float) -> Image.Image:
    """What the action expert sees: squashed at `crop_pct` 1.0 (as trained), else resized and centre-cropped."""
    return squash(image, size) if crop_pct == 1.0 else resize_and_crop(image, size, crop_pct)


def normalized_pixels(images: Sequence[Image.Image], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(x / 255 − mean) / std of equally large RGB images, `(len(images), 3, height, width)` float32."""
    width, height = images[0].size
    pixels = np.empty((len(images), 3, height, width), np.float32)
    for target, image in zip(pixels, images, strict=True):
        np.divide(np.asarray(image).transpose(2, 0, 1), 255, out=target, dtype=np.float32)
    pixels -= np.asarray(mean, np.float32)[:, None, None]
    pixels /= np.asarray(std, np.float32)[:, None, None]
    return torch.from_numpy(pixels)


def as_batch(images: Any) -> list:
    """The images of a list or of a 4-D array; a single image is a batch of one."""
    if isinstance(images, list | tuple) or getattr(images, "ndim", None) == 4:
        return list(images)
    return [images]


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """What the VLM sees of several cameras: one picture, left to right, at the height of the first, as released."""
    if len(images) == 1:
        return images[0]
    height = images[0].height
    scaled = [
        image if image.height == height else image.resize((max(1, round(image.width * height / image.height)), height))
        for image in images
    ]
    picture = Image.new("RGB", (sum(image.width for image in scaled), height))
    left = 0
    for image in scaled:
        picture.paste(image, (left, 0))
        left += image.width
    return picture


def camera_rows(images: Any, cameras: Sequence[str]) -> list[dict[str, Image.Image]]:
    """One dict of RGB images per sample, in the order of the model's `cameras`.

    Args:
        images: a plain image or a batch of them (one camera only), a dict `{camera: image}`, a list of such dicts, or a
            dict of batches.

    Raises:
        ValueError: no image, an unknown or missing camera, unequal batches, or an image that `to_rgb` refuses.
    """
    if images is None:
        raise ValueError(f"an action needs an image of {list(cameras)}, got none")
    if isinstance(images, Mapping):
        _check_cameras(images, cameras)
        columns = {camera: as_batch(column) for camera, column in images.items()}
        lengths = {camera: len(column) for camera, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"every camera must give the same number of images, got {lengths}")
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        rows = [_named(row, cameras) for row in as_batch(images)]
    if not rows:
        raise ValueError("images is empty; give at least one image")
    return [
        {camera: to_rgb(row[camera], f"images[{index}][{camera!r}]") for camera in cameras}
        for index, row in enumerate(rows)
    ]


def chat_images(images: Any, cameras: Sequence[str]) -> tuple[list[Image.Image], list[int] | None]:
    """RGB images of chat prompts in reading order, and how many each prompt has if the nesting tells.

    Args:
        images: a batch, or one batch per prompt, of images, camera dicts (seen side by side) or of the strings
            that chat messages may hold: path, URL or base64.

    Raises:
        ValueError: an image that can't be read, with its number.
    """
    if images is None:
        return [], None
    if isinstance(images, Mapping):
        return [side_by_side(list(row.values())) for row in camera_rows(images, cameras)], None
    groups = as_batch(images)
    nested = any(isinstance(group, list | tuple) for group in groups)
    groups = [as_batch(group) for group in groups] if nested else [groups]
    flat = [image for group in groups for image in group]
    frames = []
    for index, image in enumerate(flat):
        if isinstance(image, Mapping):
            frames.append(side_by_side(list(camera_rows([image], cameras)[0].values())))
            continue
        image = _load(image, f"images[{index}]") if isinstance(image, str) else image
        frames.append(to_rgb(image, f"images[{index}]"))
    return frames, [len(group) for group in groups] if nested else None


def _named(row: Any, cameras: Sequence[str]) -> Mapping[str, Any]:
    """A sample as a camera dict; a plain image is the only camera's."""
    if isinstance(row, Mapping):
        _check_cameras(row, cameras)
        return row
    if len(cameras) > 1:
        raise ValueError(
            f"this model sees the cameras {list(cameras)}, got one plain image; give a dict with them all "
            f"(missing: {list(cameras[1:])})"
        )
    return {cameras[0]: row}


def _check_cameras(given: Mapping[str, Any], cameras: Sequence[str]) -> None:
    unknown = [camera for camera in given if camera not in cameras]
    if unknown:
        raise ValueError(
            f"unknown camera {unknown[0]!r}; this model sees {list(cameras)}, the nearest is "
            f"{nearest(unknown[0], cameras)!r}"
        )
    missing = [camera for camera in cameras if camera not in given]
    if missing:
        raise ValueError(f"missing cameras {missing}; this model sees {list(cameras)}, got {list(given)}")


def _load(source: str, name: str) -> Image.Image:
    """The image behind a path, URL or base64 string of a chat message."""
    try:
        return load_image(source)
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} can't be read from {source[:100]!r}: {error}") from error
