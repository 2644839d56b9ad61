"""Films of episodes: the front camera, below it what was asked and answered, and the wrist camera."""

from pathlib import Path

from PIL import Image

from instructvla.evaluation.film_writer import FRAME_RATE, MARGIN, PAPER, FilmWriter, write_caption, write_verdict
from instructvla.evaluation.tabletop.rollout import Robot
from instructvla.evaluation.tabletop.simulation import CONTROL_PERIOD
from instructvla.evaluation.tabletop.world import CAMERAS

FRAMES_PER_STEP = round(FRAME_RATE * CONTROL_PERIOD)
START_SECONDS, END_SECONDS = 1.2, 1.6  # that an episode's first and last pictures stay
SIZE = 384  # px of the front camera's picture
INSET = 112  # px, of the wrist camera's picture
CAPTION = INSET + 2 * MARGIN  # px below the front camera's picture


class Film(FilmWriter):
    """Called with a robot at each of its moments, as `rollouts(watch=film)` does, it shows one episode after another.

    Args:
        path: of the film.
        size: px of the front camera's picture; even, from 224 on.

    Raises:
        ValueError: if the path can't be that of a film, or the size is out of range.
    """

    def __init__(self, path: Path, size: int = SIZE):
        super().__init__(path)
        if size < 2 * INSET or size % 2:
            raise ValueError(f"a film's size must be even and at least {2 * INSET} px, got {size}.")
        self.size = size

    def __call__(self, robot: Robot) -> None:
        """Adds the robot's present moment."""
        repeats = FRAMES_PER_STEP
        if robot.steps == 0:
            repeats = round(START_SECONDS * FRAME_RATE)
        elif robot.done:
            repeats = round(END_SECONDS * FRAME_RATE)
        self.add(film_frame(robot, self.size), repeats)


def film_frame(robot: Robot, size: int = SIZE) -> Image.Image:
    """One moment: (size, size + CAPTION) px."""
    front, wrist = CAMERAS
    frame = Image.new("RGB", (size, size + CAPTION), PAPER)
    frame.paste(Image.fromarray(robot.world.film_frame(front, size)))
    frame.paste(Image.fromarray(robot.world.film_frame(wrist, INSET)), (size - INSET - MARGIN, size + MARGIN))
    said = robot.responses[-1] if robot.responses else ""
    write_caption(frame, size, size - INSET - 3 * MARGIN, robot.assignment.trial.instruction, said)
    if robot.done:
        write_verdict(frame, size, robot.success if robot.assignment.judged else None)
    return frame
