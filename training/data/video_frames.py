"""The frames of a video at given times, decoded by PyAV one after another."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from PIL import Image

from instructvla.training.data.episodes import BadEpisodeError

PICTURE_OPTIONS = {"jpeg": {"quality": 95, "subsampling": "4:4:4"}, "png": {"compress_level": 1}}


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame and when it is shown, in seconds since the first frame of its file."""

    time: float
    frame: av.VideoFrame


def pictures_at(
    path: Path,
    times: Sequence[float],
    tolerance: float,
    end: float | None = None,
    picture_format: str = "jpeg",
    threads: int = 1,
) -> list[bytes]:
    """Encoded pictures of a video, one for each of `times`.

    Args:
        path: of the video.
        times: ascending, in seconds since the first frame of the file (whose own time stamp need not be 0).
        tolerance: how far the nearest frame may be, in seconds.
        end: frames from here on (less `tolerance`) belong to something else, in seconds.
        picture_format: "jpeg" (quality 95, colour at full resolution) or "png" (lossless).
        threads: that may decode.

    Raises:
        BadEpisodeError: naming the file, and the row where no frame is near enough: a video is never filled up.
    """
    reformatter = VideoReformatter()  # one for all: it keeps its tables
    return [
        encode(reformatter.reformat(timed.frame, format="rgb24", threads=threads).to_ndarray(), picture_format)
        for timed in frames_at(path, times, tolerance, end, threads)
    ]


def frames_at(
    path: Path, times: Sequence[float], tolerance: float, end: float | None = None, threads: int = 1
) -> Iterator[TimedFrame]:
    """As `pictures_at`, the decoded frames one by one."""
    require_ascending(path, times)
    if len(times) == 0:
        return
    try:
        with closing(decoded_frames(path, times[0] - tolerance, threads)) as frames:
            yield from nearest_frames(path, before(frames, end, tolerance), times, tolerance)
    except FileNotFoundError as error:
        raise BadEpisodeError(f"{path} is missing; copy the video again") from error
    except (av.FFmpegError, OSError) as error:
        raise BadEpisodeError(f"{path} is truncated or no video ({error.strerror or error}); copy it again") from error


def require_ascending(path: Path, times: Sequence[float]) -> None:
    wrong = np.flatnonzero(~(np.diff(np.asarray(times, np.float64)) >= 0))
    if len(wrong) or not np.isfinite(times).all():
        row = int(wrong[0]) + 1 if len(wrong) else 0
        raise BadEpisodeError(
            f"{path}: the time stamp of row {row}, {times[row]} s, does not follow the one before; record it again"
        )


def decoded_frames(path: Path, start: float, threads: int) -> Iterator[TimedFrame]:
    """Frames in the order they are shown, from one at or before `start` seconds; seeking goes to key frames."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise BadEpisodeError(f"{path} has no video; copy it again")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        first = stream.start_time or 0
        for target in seek_targets(start):
            container.seek(first + int(target / stream.time_base), stream=stream)
            frames = timed_frames(path, container, first)
            head = next(frames, None)
            if head is not None and head.time <= start:
                break
        if head is not None:
            yield head
        yield from frames


def seek_targets(start: float) -> Iterator[float]:
    """`start`, then ever earlier times: a container that is sought by decoding time may find a frame shown later."""
    back = 0.0
    while start > back:
        yield start - back
        back = 2 * back + 1
    yield 0.0


def timed_frames(path: Path, container: InputContainer, first: int) -> Iterator[TimedFrame]:
    for frame in container.decode(video=0):
        if frame.pts is None:
            raise BadEpisodeError(f"{path} has frames without time stamps; write it again as MP4")
        yield TimedFrame(float((frame.pts - first) * frame.time_base), frame)


def before(frames: Iterable[TimedFrame], end: float | None, tolerance: float) -> Iterator[TimedFrame]:
    """Those of the same episode: its last frame is a whole period before `end`, the next one's first is at `end`."""
    for timed in frames:
        if end is not None and timed.time >= end - tolerance:
            return
        yield timed


def nearest_frames(
    path: Path, frames: Iterator[TimedFrame], times: Sequence[float], tolerance: float
) -> Iterator[TimedFrame]:
    earlier, later = None, next(frames, None)
    for row, time in enumerate(times):
        while later is not None and later.time < time:
            earlier, later = later, next(frames, None)
        around = [timed for timed in (earlier, later) if timed is not None]
        nearest = min(around, key=lambda timed: abs(timed.time - time), default=None)
        if nearest is None or abs(nearest.time - time) > tolerance:
            raise BadEpisodeError(no_frame(path, row, time, tolerance, nearest))
        if nearest.frame.is_corrupt:
            raise BadEpisodeError(f"{path}: the frame of row {row}, at {time:.4f} s, is damaged; copy the video again")
        yield nearest


def no_frame(path: Path, row: int, time: float, tolerance: float, nearest: TimedFrame | None) -> str:
    found = "there is none" if nearest is None else f"the nearest is at {nearest.time:.4f} s"
    return (
        f"{path}: row {row} needs a frame within {tolerance:.4f} s of {time:.4f} s, but {found}; "
        "the video is too short or of another recording: copy it again"
    )


def encode(picture: np.ndarray, picture_format: str) -> bytes:
    """An sRGB picture (height, width, 3) uint8 as the bytes of a file."""
    file = BytesIO()
    Image.fromarray(picture).save(file, picture_format, **PICTURE_OPTIONS[picture_format])
    return file.getvalue()
