"""Writing films: MP4 or GIF, with what was asked and answered as caption, and how it ended."""

import os
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from PIL import Image, ImageDraw, ImageFont

from instructvla.evaluation.one_picture import one_line

SUFFIXES = (".mp4", ".gif")
FRAME_RATE = 15  # Hz
MARGIN = 8  # px
LINE, FONT_SIZE, MAX_LINES = 18, 15, 3  # px, px, and of each text
PAPER, INK, SPEECH, PLAIN = (22, 24, 28), (235, 235, 235), (140, 200, 255), (255, 205, 120)
VERDICTS = {True: ("success", (90, 210, 110)), False: ("failed", (240, 100, 90)), None: ("end", INK)}


class Encoder(Protocol):
    """Writes frames of one size to a file."""

    def add(self, frame: Image.Image, repeats: int) -> None: ...

    def finish(self) -> None: ...


class Mp4Encoder:
    """H.264 in MP4, which browsers play."""

    def __init__(self, path: Path, width: int, height: int):
        import av  # an extra

        self._video_frame = av.VideoFrame
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("h264", rate=FRAME_RATE, options={"crf": "20", "preset": "fast"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"

    def add(self, frame: Image.Image, repeats: int) -> None:
        for _ in range(repeats):
            self._container.mux(self._stream.encode(self._video_frame.from_image(frame)))

    def finish(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


class GifEncoder:
    """An animated GIF, which any page shows."""

    def __init__(self, path: Path, width: int, height: int):
        self._path = path
        self._frames: list[Image.Image] = []
        self._durations: list[int] = []  # ms

    def add(self, frame: Image.Image, repeats: int) -> None:
        self._frames.append(frame.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
        self._durations.append(10 * round(100 * repeats / FRAME_RATE))  # GIF counts hundredths of a second

    def finish(self) -> None:
        first, *others = self._frames
        first.save(self._path, "GIF", save_all=True, append_images=others, duration=self._durations, loop=0)


class FilmWriter:
    """A film in the making, MP4 or GIF by the file's suffix; the file is there when the film is whole.

    Args:
        path: of the film.

    Raises:
        ValueError: if the path can't be that of a film.
    """

    def __init__(self, path: Path):
        check_film(path)
        self.path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._encoder: Encoder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._encoder is not None:
                self._encoder.finish()
                if kind is None:
                    self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def add(self, frame: Image.Image, repeats: int) -> None:
        """Shows a picture for so many times 1/FRAME_RATE s; all pictures have the first one's size, even in MP4."""
        if self._encoder is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            encoder = GifEncoder if self.path.suffix.lower() == ".gif" else Mp4Encoder
            self._encoder = encoder(self._partial, *frame.size)
        self._encoder.add(frame, repeats)


def check_film(path: Path) -> None:
    """Refuses what can't become a film (ValueError), before anything is run."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} must end in {' or '.join(SUFFIXES)}, such as outputs/film.mp4.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file, for example {path / 'film.mp4'}.")
    if path.suffix.lower() == ".mp4" and find_spec("av") is None:
        raise ValueError("MP4 needs PyAV: pip install 'instructvla[eval]', or give a file that ends in .gif.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{path} can't be written: {folder} is not a folder that you may write to.")


def write_caption(
    frame: Image.Image, top: int, width: int, instruction: str, said: str, atomic: str | None = None
) -> None:
    """What was asked and what was answered, below `top` px at the left, in lines of `width` px.

    Args:
        atomic: what System 2 made of the instruction; the three texts then have the lines that two have without it.
    """
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(FONT_SIZE)
    texts = [(f"you: {instruction}", INK)]
    texts += [(f"System 2: {atomic}", PLAIN)] if atomic else []
    texts += [(f"robot: {said}", SPEECH)] if said else []
    most = MAX_LINES if atomic is None else 2 * MAX_LINES // 3
    lines = [(line, colour) for text, colour in texts for line in wrapped(text, width, font, most)]
    for number, (line, colour) in enumerate(lines):
        draw.text((MARGIN, top + MARGIN + number * LINE), line, colour, font)


def write_verdict(frame: Image.Image, bottom: int, success: bool | None) -> None:
    """How it ended, in the picture's corner above `bottom` px."""
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(FONT_SIZE)
    word, colour = VERDICTS[success]
    left, upper = frame.width - round(font.getlength(word)) - 3 * MARGIN, bottom - LINE - 2 * MARGIN
    draw.rounded_rectangle([left, upper, frame.width - MARGIN, upper + LINE + MARGIN], MARGIN, PAPER)
    draw.text((left + MARGIN, upper + MARGIN // 2), word, colour, font)


def wrapped(
    text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, most: int = MAX_LINES
) -> list[str]:
    """The text in up to `most` lines of at most `width` px; what is too long ends with an ellipsis."""
    lines = [""]
    for word in one_line(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    return [shortened(line, width, font) for line in lines]


def shortened(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a line as `width` px hold; an ellipsis stands for the rest."""
    if font.getlength(line) <= width:
        return line
    kept = next((end for end in range(len(line), 0, -1) if font.getlength(f"{line[:end]}…") <= width), 0)
    return f"{line[:kept].rstrip(' …')}…"
