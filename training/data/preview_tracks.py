"""What a preview draws of an episode along time: curves as SVG paths, texts as segments, pictures as thumbnails."""

import base64
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.samples import decoded

MAX_POINTS = 1000  # of a curve
MAX_FRAMES = 40  # of a camera in an episode
KEY_FRAMES = 12  # of them in the strip
MAX_TICKS = 6  # of the time axis
THUMB_HEIGHT = 160  # pixels
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Curve:
    """One dimension over time.

    Args:
        name, unit: of the dimension.
        path: SVG path data in a box from (0, 0) to (steps, 1), y pointing down.
        low, high: values at the bottom and at the top of the box.
        zero: y of the value 0, None where it lies outside.
        gripper: whether it is one, 1 open and 0 closed.
        values: at the cursor's steps, as texts.
    """

    name: str
    unit: str
    path: str
    low: str
    high: str
    zero: float | None
    gripper: bool
    values: list[str]


@dataclass(frozen=True)
class Segment:
    """A text that holds from one step (included) to another (excluded); None where there is none."""

    text: str | None
    start: int
    end: int

    @property
    def hue(self) -> int:
        """Degrees of a colour, the same for the same text."""
        return zlib.crc32((self.text or "").encode("utf-8", "replace")) % 360


@dataclass(frozen=True)
class Tick:
    """A mark of the time axis: where it is, in steps from the left, and its time."""

    place: float
    label: str


@dataclass(frozen=True)
class Strip:
    """Frames of one camera.

    Args:
        camera: its name.
        frames: step of each thumbnail.
        thumbs: data URIs, None for a picture that can't be decoded.
        key: which of them the strip shows; the others are shown under the cursor.
        size: "WIDTH × HEIGHT" of the recording, all that occur.
    """

    camera: str
    frames: list[int]
    thumbs: list[str | None]
    key: list[int]
    size: str


def spread(count: int, total: int) -> list[int]:
    """At most `count` of `total` places, evenly: the middle of each part."""
    count = min(count, total)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def curve(
    values: np.ndarray, name: str, unit: str, gripper: bool, held: bool, span: tuple[float, float] | None = None
) -> Curve:
    """
    Args:
        values: (steps,), all of them; NaN and infinity are left out of the curve.
        held: a value holds for its step (an action), which gives stairs; else points are joined (a state).
        span: what the box holds at least, so that curves of several episodes can be compared.
    """
    finite = np.flatnonzero(np.isfinite(values))
    known = values[finite] if len(finite) else np.zeros(1)
    bounds = [known.min(), known.max(), *((0, 1) if gripper else ()), *(span or ())]
    low, high = float(min(bounds)), float(max(bounds))
    span = high - low
    places = finite[turning_places(values[finite])]
    heights = 1 - (values[places] - low) / span if span else np.full(len(places), 0.5)
    return Curve(
        name=name,
        unit=unit,
        path="" if not len(places) else stairs(places, heights, len(values)) if held else polyline(places, heights),
        low=number(low),
        high=number(high),
        zero=round(high / span, 4) if span and low < 0 < high else None,
        gripper=gripper,
        values=[number(value) for value in values[cursor_steps(len(values))]],
    )


def ticks(steps: int, rate: float) -> list[Tick]:
    """At most `MAX_TICKS` round times from the first step to the last, each in the middle of its step."""
    last = (steps - 1) / rate
    power = 10.0 ** math.floor(math.log10(max(last, 1 / rate)))
    between = next(
        factor * power for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10) if last / (factor * power) <= MAX_TICKS - 1
    )
    times = [number * between for number in range(math.floor(last / between + 1e-6) + 1)]
    return [Tick(round(time * rate + 0.5, 3), f"{time:.6g} s") for time in times]


def cursor_steps(steps: int) -> list[int]:
    """The steps that the cursor stops at: all, or as many as a curve has points."""
    return spread(MAX_POINTS, steps)


def turning_places(values: np.ndarray) -> np.ndarray:
    """All places, or of a long recording the lowest and the highest of each part: no jump is lost."""
    if len(values) <= MAX_POINTS:
        return np.arange(len(values))
    bounds = np.linspace(0, len(values), MAX_POINTS // 2 + 1).astype(int)
    parts = [(start, values[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]
    return np.unique([start + place for start, part in parts for place in (part.argmin(), part.argmax())])


def polyline(places: np.ndarray, heights: np.ndarray) -> str:
    points = [f"{place + 0.5:g} {height:.4g}" for place, height in zip(places, heights, strict=True)]
    return "M" + "L".join(points if len(points) > 1 else points * 2)


def stairs(places: np.ndarray, heights: np.ndarray, steps: int) -> str:
    ends = [*places[1:], steps]
    stretches = [f"V{height:.4g}H{end}" for height, end in zip(heights, ends, strict=True)]
    return f"M0 {heights[0]:.4g}" + "".join(stretches)


def number(value: float) -> str:
    return f"{value:.4g}"


def segments(texts: Sequence[str | None]) -> list[Segment]:
    """Runs of the same text."""
    runs, start = [], 0
    for text, run in groupby(texts):
        end = start + sum(1 for _ in run)
        runs.append(Segment(text, start, end))
        start = end
    return runs


def strip(camera: str, pictures: Sequence[bytes]) -> Strip:
    """Thumbnails of a camera's pictures, spread over the episode."""
    frames = spread(MAX_FRAMES, len(pictures))
    thumbs, sizes = [], {}
    for frame in frames:
        try:
            picture = decoded(pictures[frame], f"frame {frame}, camera {camera!r}")
        except BadEpisodeError:
            thumbs.append(None)
            continue
        sizes[f"{picture.width} × {picture.height}"] = None
        thumbs.append(data_uri(picture))
    return Strip(camera, frames, thumbs, spread(KEY_FRAMES, len(frames)), ", ".join(sizes) or "unknown")


def data_uri(picture: Image.Image) -> str:
    """A JPEG of at most `THUMB_HEIGHT` pixels in height and four times that in width."""
    thumb = picture.copy()
    thumb.thumbnail((4 * THUMB_HEIGHT, THUMB_HEIGHT), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    thumb.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
