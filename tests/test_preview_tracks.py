"""Claims about what a preview draws along time."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from instructvla.training.data import preview_tracks as tracks
from tests.robot_frames import jpeg


def points(path: str) -> list[list[float]]:
    """The points of a joined curve."""
    return [[float(value) for value in point.split()] for point in path[1:].split("L")]


def drawn(values, **options) -> tracks.Curve:
    options = {"gripper": False, "held": False} | options
    return tracks.curve(np.asarray(values, np.float32), "x", "m", **options)


@pytest.mark.parametrize("count, total", [(3, 9), (40, 7), (5, 5), (1, 100)])
def test_spread_places_are_distinct_and_in_range_and_as_many_as_asked_if_there_are(count, total):
    places = tracks.spread(count, total)
    assert places == sorted(set(places)) and len(places) == min(count, total)
    assert places[0] >= 0 and places[-1] < total


def test_spread_places_lie_in_the_middle_of_equal_parts():
    assert tracks.spread(3, 9) == [1, 4, 7]


def test_a_state_goes_through_each_step_s_middle_with_the_highest_value_on_top():
    assert points(drawn([0.0, 2.0, 1.0]).path) == [[0.5, 1], [1.5, 0], [2.5, 0.5]]


def test_an_action_holds_its_value_for_its_step():
    assert drawn([0.0, 2.0, 1.0], held=True).path == "M0 1V1H1V0H2V0.5H3"


def test_the_box_tells_its_range_and_where_zero_is():
    curve = drawn([-1.0, 3.0])
    assert (curve.low, curve.high, curve.zero) == ("-1", "3", 0.75)
    assert drawn([1.0, 3.0]).zero is None


def test_a_gripper_is_drawn_between_closed_and_open_whatever_it_does():
    curve = drawn([0.5, 0.5], gripper=True)
    assert (curve.low, curve.high) == ("0", "1") and points(curve.path)[0][1] == 0.5


def test_a_box_spans_at_least_what_it_is_told_to_and_the_episode():
    curve = drawn([0.0, 0.5], span=(-1, 1))
    assert (curve.low, curve.high) == ("-1", "1") and points(curve.path) == [[0.5, 0.5], [1.5, 0.25]]
    assert drawn([0.0, 3.0], span=(-1, 1)).high == "3"


@pytest.mark.parametrize(
    ("steps", "rate", "labels"),
    [
        (8, 5.0, ["0 s", "0.5 s", "1 s"]),
        (301, 5.0, ["0 s", "20 s", "40 s", "60 s"]),
        (343, 30.0, ["0 s", "5 s", "10 s"]),
        (2, 30.0, ["0 s", "0.01 s", "0.02 s", "0.03 s"]),
        (1, 3.0, ["0 s"]),
    ],
)
def test_ticks_are_a_few_round_times_each_in_the_middle_of_its_step(steps, rate, labels):
    marks = tracks.ticks(steps, rate)
    assert [mark.label for mark in marks] == labels and len(marks) <= tracks.MAX_TICKS
    assert marks[0].place == 0.5 and marks[-1].place <= steps - 0.5 + 1e-6


def test_a_constant_dimension_is_a_line_in_the_middle():
    assert {y for _, y in points(drawn([7.0, 7.0]).path)} == {0.5}


@pytest.mark.parametrize("held", [True, False])
def test_values_that_are_not_finite_are_left_out_of_the_curve_but_told(held):
    curve = drawn([1.0, np.nan, 3.0, np.inf], held=held)
    assert "nan" not in curve.path and "inf" not in curve.path
    assert (curve.low, curve.high, curve.values) == ("1", "3", ["1", "nan", "3", "inf"])
    assert drawn([np.nan] * 3, held=held).path == ""


def test_a_long_curve_is_bounded_and_keeps_every_jump():
    values = np.zeros(100_000)
    values[12_345] = 1
    curve = drawn(values)
    assert len(points(curve.path)) <= tracks.MAX_POINTS == len(curve.values)
    assert [12_345.5, 0] in points(curve.path)


def test_segments_are_the_runs_of_equal_texts():
    runs = tracks.segments(["up", "up", None, "up"])
    assert [(run.text, run.start, run.end) for run in runs] == [("up", 0, 2), (None, 2, 3), ("up", 3, 4)]
    assert runs[0].hue == runs[2].hue


def test_thumbnails_are_bounded_in_number_and_height():
    strip = tracks.strip("primary", [jpeg(0, height=480, width=640)] * 100)
    assert len(strip.thumbs) == tracks.MAX_FRAMES and strip.size == "640 × 480"
    thumb = Image.open(io.BytesIO(base64.b64decode(strip.thumbs[0].partition(",")[2])))
    assert thumb.size == (round(640 * tracks.THUMB_HEIGHT / 480), tracks.THUMB_HEIGHT)
    assert len(strip.key) == tracks.KEY_FRAMES


def test_a_small_picture_is_not_enlarged():
    strip = tracks.strip("primary", [jpeg(0, height=24, width=32)])
    assert Image.open(io.BytesIO(base64.b64decode(strip.thumbs[0].partition(",")[2]))).size == (32, 24)


def test_a_picture_that_cannot_be_decoded_leaves_a_gap():
    strip = tracks.strip("primary", [jpeg(0), b"no picture"])
    assert re.match("data:image/jpeg", strip.thumbs[0]) and strip.thumbs[1] is None
