"""Films of episodes in any simulator: its cameras side by side, below them what was asked and answered."""

import numpy as np
from PIL import Image

from instructvla.evaluation.episode import Moment
from instructvla.evaluation.film_writer import (
    LINE,
    MARGIN,
    MAX_LINES,
    PAPER,
    FilmWriter,
    write_caption,
    write_verdict,
)

HEIGHT = 320  # px of the pictures
CAPTION = 2 * MAX_LINES * LINE + 2 * MARGIN  # px below them
STEP_FRAMES, STILL_FRAMES = 3, 20  # of each step, and of the first and the last one


class EpisodeFilm(FilmWriter):
    """Watches an episode (see `run_episode`)."""

    def __call__(self, moment: Moment) -> None:
        is_still = moment.steps == 0 or moment.verdict is not None
        self.add(moment_frame(moment), STILL_FRAMES if is_still else STEP_FRAMES)


def moment_frame(moment: Moment) -> Image.Image:
    """One moment as a picture with even sides."""
    pictures = [_of_height(image) for image in moment.observation.images.values()]
    frame = Image.new("RGB", (sum(picture.width for picture in pictures), HEIGHT + CAPTION), PAPER)
    left = 0
    for picture in pictures:
        frame.paste(picture, (left, 0))
        left += picture.width
    write_caption(frame, HEIGHT, frame.width - 2 * MARGIN, moment.instruction, moment.response or "", moment.atomic)
    if moment.verdict is not None:
        write_verdict(frame, HEIGHT, moment.verdict)
    return frame


def _of_height(image: np.ndarray) -> Image.Image:
    height, width = image.shape[:2]
    return Image.fromarray(image).resize((2 * round(width * HEIGHT / height / 2), HEIGHT), Image.Resampling.BILINEAR)
