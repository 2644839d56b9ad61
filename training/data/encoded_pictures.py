"""Encoded pictures, made and opened in one place, so that a message about a broken one tells the same everywhere."""

import io

import numpy as np
from PIL import Image

from instructvla.processing.image_transforms import DECODING_ERRORS

PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def is_picture(content: bytes) -> bool:
    """Whether it begins as a JPEG or a PNG does, the formats that an episode may hold."""
    return content.startswith(PICTURE_STARTS)


def open_picture(picture: bytes, name: str = "the picture") -> Image.Image:
    """A picture of a file's bytes, of which only the header is read: decoding it may still fail.

    Args:
        picture: the bytes, in any format that Pillow knows.
        name: what messages call it.

    Raises:
        ValueError: no such format, or a header that is damaged or tells of too many pixels.
    """
    try:
        return Image.open(io.BytesIO(picture))
    except DECODING_ERRORS as error:
        raise ValueError(f"{name} can't be decoded: {problem_of(error, len(picture))}") from error


def encoded(picture: np.ndarray) -> bytes:
    """A (height, width, 3) picture as JPEG that no eye can tell from it."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def problem_of(error: Exception, size: int) -> str:
    """An error of Pillow in words of one line; where it names an object in memory, the size in bytes instead."""
    text = " ".join(str(error).split())
    return f"its {size} bytes are of no known format" if " object at 0x" in text else text
