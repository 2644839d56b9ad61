"""Claims about films of episodes in any simulator."""

import numpy as np
from PIL import Image

from instructvla.evaluation.episode import Moment
from instructvla.evaluation.episode_films import CAPTION, HEIGHT, EpisodeFilm, moment_frame
from instructvla.evaluation.simulators.simulator import Observation

SEEN = Observation(
    {"primary": np.full((48, 65, 3), 200, np.uint8), "wrist": np.full((32, 32, 3), 90, np.uint8)},
    "reach it",
    None,
    np.zeros(1),
)


def test_cameras_stand_side_by_side_over_the_words():
    frame = moment_frame(Moment(SEEN, 1, "reach it", "I reach it."))
    assert frame.height == HEIGHT + CAPTION and frame.width % 2 == 0
    pixels = np.asarray(frame)
    assert (pixels[:HEIGHT, 0] == 200).all() and (pixels[:HEIGHT, -1] == 90).all()
    assert not np.array_equal(pixels[HEIGHT:], np.asarray(moment_frame(Moment(SEEN, 1, "reach it")))[HEIGHT:])


def test_the_verdict_is_shown_at_the_end():
    way, end = (np.asarray(moment_frame(Moment(SEEN, 1, "reach it", verdict=verdict))) for verdict in (None, False))
    assert not np.array_equal(way, end)


def test_a_film_has_each_step(tmp_path):
    with EpisodeFilm(tmp_path / "film.gif") as film:
        for steps in range(3):
            grey = np.full((48, 64, 3), 50 * steps, np.uint8)
            film(Moment(Observation({"primary": grey}, "", None, np.zeros(1)), steps, "reach it"))
    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.n_frames == 3


def test_what_system_two_made_of_the_instruction_stands_in_the_caption():
    told, plain = (
        np.asarray(moment_frame(Moment(SEEN, 1, "word " * 60, "said " * 60, atomic=atomic)))
        for atomic in (None, "plain " * 60)
    )
    assert told.shape == plain.shape and not np.array_equal(told, plain)
    assert (plain[-4:] == plain[-1, 0]).all()  # the three texts end above the frame's edge
