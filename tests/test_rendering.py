"""Off-screen pictures."""

import numpy as np
import pytest

from instructvla.evaluation.tabletop import rendering
from instructvla.evaluation.tabletop.rendering import first_working, smooth_picture
from tests.breakfast_scene import simulated


@pytest.fixture(scope="module")
def world():
    simulation = simulated()
    yield simulation
    simulation.close()


def test_missing_library_names_the_package_to_install():
    with pytest.raises(RuntimeError, match="apt-get install libegl1"):
        first_working(("no_such_backend",))


def test_a_library_that_fails_is_passed_over():
    assert first_working(("no_such_backend", *rendering.BACKENDS)) is not None


def test_the_environment_variable_chooses_the_library(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering.chosen_backends() == ("osmesa",)
    monkeypatch.delenv("MUJOCO_GL")
    assert rendering.chosen_backends() == rendering.BACKENDS


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_pictures_are_square_and_repeat_exactly(world, camera):
    one, two = world.picture(camera, 64), world.picture(camera, 64)
    assert one.shape == (64, 64, 3) and one.dtype == np.uint8 and one.std() > 10
    np.testing.assert_array_equal(one, two)


def test_thing_is_seen_where_its_position_says(world):
    u, v = world.picture_positions("front")["red block"]
    picture = world.picture("front", 128).astype(int)
    red, green, blue = picture[int(v * 128), int(u * 128)]
    assert red > 90 and red > 2 * green and red > 2 * blue


def test_robot_s_left_is_the_picture_s_right(world):
    positions = world.picture_positions("front")
    assert positions["water bottle"][0] > 0.5 > positions["white bowl"][0]


def test_shadows_darken_a_film_frame(world):
    plain, film = world.picture("front", 192), world.film_frame("front", 192)
    assert film.shape == plain.shape
    assert film.mean() < plain.mean()


def test_smoothing_takes_the_mean_of_four():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0, 0] = 200
    assert smooth_picture(picture)[0, 0].tolist() == [50, 50, 50]


def test_closed_renderer_is_made_anew(world):
    before = world.picture("front", 64)
    world.close()
    np.testing.assert_array_equal(world.picture("front", 64), before)
