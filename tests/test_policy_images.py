"""Policy frames against the pixels of the released evaluation's TensorFlow pipeline.

One level is the tolerance of all these fixtures. The crop is bit-equal here, and so is the JPEG round trip with
libjpeg-turbo on x86-64; 3 in 100,000 resized values are rounded the other way. The allowed fractions leave room for
other builds of PIL and numpy.
"""

import numpy as np
import pytest

from instructvla.evaluation.policy_images import center_crop, jpeg_round_trip, libero_frame, resize_lanczos3
from tests.parity import load_fixture

GOLDEN = {name: tensor.numpy() for name, tensor in load_fixture("libero_image")[0].items()}
CAMERA = GOLDEN["in.agentview_image_256"]
ROWS = [0, 111, 223]


def assert_within_one_level(actual, expected, changed_fraction):
    """At most one level apart anywhere, and different at all in no more than `changed_fraction` of the values."""
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= changed_fraction


def test_jpeg_round_trip_equals_tensorflows():
    upright = CAMERA[::-1, ::-1]
    assert_within_one_level(jpeg_round_trip(upright)[::4, ::4], GOLDEN["out.after_rot180_jpeg_strided4"], 0.01)


def test_lanczos_resize_equals_tensorflows():
    full = resize_lanczos3(jpeg_round_trip(CAMERA[::-1, ::-1]))
    assert_within_one_level(full, GOLDEN["crop_only.in"], 0.01)
    assert_within_one_level(full[::2, ::2], GOLDEN["out.full_image_224_strided2"], 0.01)
    assert_within_one_level(full[ROWS], GOLDEN["out.full_image_rows_0_111_223"], 0.01)


def test_center_crop_equals_tensorflows():
    cropped = center_crop(GOLDEN["crop_only.in"])
    assert_within_one_level(cropped[::2, ::2], GOLDEN["out.center_cropped_224_strided2"], 1e-4)
    assert_within_one_level(cropped[ROWS], GOLDEN["out.center_cropped_rows_0_111_223"], 1e-4)


def test_center_crop_of_a_wide_simulator_frame_equals_tensorflows():
    cropped = center_crop(GOLDEN["simpler_crop.in"])
    assert_within_one_level(cropped[::2, ::2], GOLDEN["simpler_crop.out_strided2"], 1e-4)
    assert_within_one_level(cropped[ROWS], GOLDEN["simpler_crop.out_rows_0_111_223"], 1e-4)


def test_libero_frame_equals_the_released_one():
    frame = libero_frame(CAMERA)
    assert_within_one_level(frame[::2, ::2], GOLDEN["out.center_cropped_224_strided2"], 0.01)
    assert_within_one_level(frame[ROWS], GOLDEN["out.center_cropped_rows_0_111_223"], 0.01)


def test_libero_wrist_frame_goes_the_same_way():
    wrist = CAMERA[:, ::-1]  # the released numbers were made with the mirrored camera image as the wrist image
    assert_within_one_level(libero_frame(wrist)[::4, ::4], GOLDEN["out.wrist_center_cropped_224_strided4"], 0.01)


def test_whole_area_crop_at_the_same_size_changes_nothing():
    np.testing.assert_array_equal(center_crop(GOLDEN["crop_only.in"], area=1.0), GOLDEN["crop_only.in"])


@pytest.mark.parametrize("shape", [(480, 640, 3), (37, 51, 3), (8, 8, 3)])
def test_any_frame_size_gives_a_policy_frame(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert jpeg_round_trip(image).shape == shape
    frame = libero_frame(image)
    assert frame.shape == (224, 224, 3) and frame.dtype == np.uint8


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_uniform_gray_frame_stays_as_it_is(level):
    image = np.full((50, 70, 3), level, dtype=np.uint8)
    np.testing.assert_array_equal(libero_frame(image), np.full((224, 224, 3), level, dtype=np.uint8))


def test_input_images_are_not_modified():
    image = CAMERA.copy()
    libero_frame(image)
    np.testing.assert_array_equal(image, CAMERA)


@pytest.mark.parametrize("function", [libero_frame, center_crop, resize_lanczos3, jpeg_round_trip])
@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((8, 8, 3), np.float32), "got float32 array"),
        ([[0, 0, 0]], "got list"),
        (np.zeros((8, 8), np.uint8), r"got \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"got \(8, 8, 4\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "one RGB frame"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
    ],
)
def test_an_image_that_is_not_a_uint8_rgb_frame_is_refused(function, image, message):
    with pytest.raises(ValueError, match=message):
        function(image)


@pytest.mark.parametrize("area", [0.0, 1.5, float("nan")])
def test_an_impossible_crop_area_is_refused(area):
    with pytest.raises(ValueError, match="Crop area"):
        center_crop(CAMERA, area=area)
