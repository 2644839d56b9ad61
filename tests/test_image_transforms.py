"""Image decoding, cameras and geometry. Bytes are compared exactly: Pillow's fixed-point bicubic is deterministic."""

import base64
import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla.processing.image_transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VLM_MEAN,
    VLM_STD,
    camera_rows,
    chat_images,
    expert_view,
    normalized_pixels,
    side_by_side,
    squash,
    to_rgb,
)
from tests.parity import load_fixture, relative_error

TENSORS, META = load_fixture("image_preprocess")
CASES = range(len(META["images"]))


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def same(image: Image.Image, array: np.ndarray) -> bool:
    return image.mode == "RGB" and np.array_equal(np.asarray(image), array)


# Geometry


def rows_and_grid(pixels: torch.Tensor, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    last = pixels.shape[-1] - 1
    return pixels[:, [0, last // 2, last]], pixels[:, ::stride, ::stride]


@pytest.mark.parametrize("case", CASES)
def test_vlm_view_equals_the_released_one_to_the_byte(case):
    view = squash(to_rgb(TENSORS[f"img{case}.in"]), 448)
    assert hashlib.sha256(view.tobytes()).hexdigest() == META["images"][case]["vlm_u8_sha256"]
    rows, grid = rows_and_grid(normalized_pixels([view], VLM_MEAN, VLM_STD)[0], 32)
    # Same bytes, so the difference is float32 rounding of (x / 255 - mean) / std.
    assert relative_error(rows, TENSORS[f"img{case}.vlm.rows_0_223_447"]) < 1e-6
    assert relative_error(grid, TENSORS[f"img{case}.vlm.strided32"]) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_expert_view_equals_the_released_centre_crop_to_the_byte(case):
    view = expert_view(to_rgb(TENSORS[f"img{case}.in"]), 224, META["dino_data_config"]["crop_pct"])
    assert hashlib.sha256(view.tobytes()).hexdigest() == META["images"][case]["dino_u8_sha256"]
    rows, grid = rows_and_grid(normalized_pixels([view], IMAGENET_MEAN, IMAGENET_STD)[0], 16)
    assert relative_error(rows, TENSORS[f"img{case}.dino.rows_0_111_223"]) < 1e-6
    assert relative_error(grid, TENSORS[f"img{case}.dino.strided16"]) < 1e-6


def test_crop_of_one_squashes_the_whole_image(frame):
    image = Image.fromarray(frame)
    assert expert_view(image, 16, 1.0).tobytes() == squash(image, 16).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2000), (224, 224), (257, 256)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_images_of_any_size_become_the_square_that_the_tower_takes(size, crop_pct):
    assert expert_view(Image.new("RGB", size, (9, 99, 199)), 224, crop_pct).size == (224, 224)


def test_an_absurdly_elongated_image_is_refused_before_it_takes_gigabytes():
    with pytest.raises(ValueError, match="20000 x 1 pixels is too elongated"):
        expert_view(Image.new("RGB", (20000, 1)), 224, 0.875)


def test_a_batch_is_normalized_as_each_image_alone(frame):
    images = [Image.fromarray(frame), Image.fromarray(frame[::-1].copy())]
    both = normalized_pixels(images, IMAGENET_MEAN, IMAGENET_STD)
    assert both.shape == (2, 3, 24, 32)
    assert both.dtype == torch.float32
    assert torch.equal(both[1], normalized_pixels(images[1:], IMAGENET_MEAN, IMAGENET_STD)[0])


# Accepted images


def test_an_rgb_pil_image_is_not_copied(frame):
    image = Image.fromarray(frame)
    assert to_rgb(image) is image


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pil_modes_convert_as_pillow_does(frame, mode):
    image = Image.fromarray(frame).convert(mode)
    assert to_rgb(image).tobytes() == image.convert("RGB").tobytes()


def test_alpha_is_dropped_not_composited(frame):
    rgba = np.dstack([frame, np.zeros((24, 32), np.uint8)])
    assert same(to_rgb(Image.fromarray(rgba)), frame)
    assert same(to_rgb(rgba), frame)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(frame, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(io.BytesIO(encoded(Image.fromarray(frame), "PNG", exif=exif)))
    turned = frame.transpose(1, 0, 2)
    upright = {1: frame, 2: frame[:, ::-1], 3: frame[::-1, ::-1], 4: frame[::-1]}
    upright |= {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}
    assert same(to_rgb(image), upright[orientation])


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_array_layouts_give_the_same_image(frame, wrap):
    assert same(to_rgb(wrap(frame)), frame)
    assert same(to_rgb(wrap(frame.transpose(2, 0, 1).copy())), frame)
    gray = np.repeat(frame[..., :1], 3, axis=2)
    for array in (frame[..., 0], frame[..., :1], frame[None, ..., 0]):
        assert same(to_rgb(wrap(array.copy())), gray)


def test_strided_and_read_only_arrays_are_accepted(frame):
    view = frame[::2, ::-2]
    view.setflags(write=False)
    assert same(to_rgb(view), view)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_within_zero_and_one_are_rounded_to_bytes(dtype):
    levels = torch.tensor([0.0, 1.0, 0.5, 0.25]).to(dtype).reshape(2, 2)
    assert np.asarray(to_rgb(levels))[..., 0].tolist() == [[0, 255], [128, 64]]


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 255.0), (0.0, float("nan")), (0.0, float("inf")), (0.0, 1.001)]
)
def test_floats_out_of_range_are_refused_with_the_range_found(low, high):
    with pytest.raises(ValueError, match=r"pic holds float32 values from .* within \[0, 1\]: undo any normalisation"):
        to_rgb(np.array([[low, high]], np.float32), "pic")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), "zero size"),
        (Image.new("RGB", (0, 4)), "zero size"),
        (np.zeros((5, 6, 2), np.uint8), r"has shape \(5, 6, 2\)"),
        (np.zeros((2, 3, 4, 4, 3), np.uint8), "has shape"),
        (np.zeros((4, 4, 3), np.int64), "has dtype int64"),
        (torch.zeros(4, 4, dtype=torch.bool), "has dtype bool"),
        (np.zeros((4, 4), np.complex64), "has dtype complex64"),
        (Image.fromarray(np.full((4, 4), 4000, np.uint16)), "mode 'I;16', more than 8 bits"),
        (Image.new("F", (4, 4)), "mode 'F', more than 8 bits"),
        (None, "is a NoneType"),
        (3, "is a int"),
        ("frame.png", "is a str"),
    ],
)
def test_what_is_no_image_is_refused_by_name(image, message):
    with pytest.raises(ValueError, match=rf"wrist .*{message}|wrist {message}"):
        to_rgb(image, "wrist")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF"])
def test_a_truncated_file_is_refused_by_name(format):
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    with pytest.raises(ValueError, match="wrist can't be decoded"):
        to_rgb(Image.open(io.BytesIO(data[: len(data) // 2])), "wrist")


def test_a_corrupt_file_is_refused_by_name(frame):
    data = bytearray(encoded(Image.fromarray(frame), "PNG"))
    data[60:90] = bytes(30)
    with pytest.raises(ValueError, match="wrist can't be decoded"):
        to_rgb(Image.open(io.BytesIO(bytes(data))), "wrist")


# Cameras


def test_one_camera_takes_plain_images_dicts_and_batches(frame):
    batches = [[frame, frame], np.stack([frame, frame]), torch.from_numpy(np.stack([frame, frame]))]
    batches += [{"primary": [frame, frame]}, {"primary": np.stack([frame, frame])}, [{"primary": frame}] * 2]
    for images in batches:
        rows = camera_rows(images, ["primary"])
        assert len(rows) == 2
        assert all(same(row["primary"], frame) for row in rows)
    for images in (frame, {"primary": frame}, [frame], (frame,)):
        assert same(camera_rows(images, ["primary"])[0]["primary"], frame)


def test_named_cameras_keep_their_images_apart(frame):
    other = frame[::-1].copy()
    for images in (
        {"wrist": other, "primary": frame},
        {"primary": [frame], "wrist": other[None]},
        [{"wrist": other, "primary": frame}],
    ):
        (row,) = camera_rows(images, ["primary", "wrist"])
        assert list(row) == ["primary", "wrist"]
        assert same(row["primary"], frame)
        assert same(row["wrist"], other)


def test_an_unreadable_camera_is_named(frame):
    broken = Image.open(io.BytesIO(encoded(Image.fromarray(frame), "PNG")[:300]))
    with pytest.raises(ValueError, match=r"images\[0\]\['wrist'\] can't be decoded"):
        camera_rows({"primary": frame, "wrist": broken}, ["primary", "wrist"])


def test_cameras_stand_side_by_side_at_the_height_of_the_first(frame):
    height, width = frame.shape[:2]
    first = Image.fromarray(frame)
    assert side_by_side([first]) is first
    assert same(side_by_side([first, first]), np.concatenate([frame, frame], axis=1))
    both = side_by_side([first, first.resize((2 * width, 2 * height))])
    assert both.size == (2 * width, height)
    assert same(both.crop((0, 0, width, height)), frame)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "needs an image"),
        ([], "images is empty"),
        ({"primary": [], "wrist": []}, "images is empty"),
        (np.zeros((4, 4, 3), np.uint8), r"cameras \['primary', 'wrist'\], got one plain image.*missing: \['wrist'\]"),
        ({"primary": None}, r"missing cameras \['wrist'\]"),
        ({"primary": None, "wirst": None}, "unknown camera 'wirst'.*nearest is 'wrist'"),
        ([{"primary": None, "wrist": None, "left": None}], "unknown camera 'left'"),
        ({"primary": [1, 2], "wrist": [1]}, "same number of images, got {'primary': 2, 'wrist': 1}"),
        ({"primary": None, "wrist": None}, r"images\[0\]\['primary'\] is a NoneType"),
    ],
)
def test_camera_mistakes_name_the_cameras(images, message):
    with pytest.raises(ValueError, match=message):
        camera_rows(images, ["primary", "wrist"])


# Images of chat prompts


def test_chat_images_are_flattened_in_reading_order_with_their_counts(frame):
    other = frame[::-1].copy()
    frames, counts = chat_images([[frame, other], [], [other]], ["primary"])
    assert counts == [2, 0, 1]
    assert [same(image, expected) for image, expected in zip(frames, [frame, other, other], strict=True)] == [True] * 3
    assert chat_images([frame, other], ["primary"])[1] is None
    assert chat_images(None, ["primary"]) == ([], None)


def test_chat_images_of_several_cameras_are_seen_side_by_side(frame):
    images = {"primary": frame, "wrist": frame[::-1].copy()}
    for given in (images, [images], [[images]]):
        picture = chat_images(given, ["primary", "wrist"])[0][0]
        assert same(picture, np.concatenate([frame, frame[::-1]], axis=1))


def test_chat_images_may_be_paths_and_base64(frame, tmp_path):
    data = encoded(Image.fromarray(frame), "PNG")
    (tmp_path / "frame.png").write_bytes(data)
    frames, _ = chat_images([[str(tmp_path / "frame.png"), base64.b64encode(data).decode()]], ["primary"])
    assert all(same(image, frame) for image in frames)


def test_an_unreadable_chat_image_is_named(frame, tmp_path):
    (tmp_path / "half.png").write_bytes(encoded(Image.fromarray(frame), "PNG")[:200])
    for source in (str(tmp_path / "half.png"), str(tmp_path / "none.png")):
        with pytest.raises(ValueError, match=r"images\[1\] can't be read from"):
            chat_images([[frame, source]], ["primary"])
