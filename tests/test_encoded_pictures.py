"""Claims about opening encoded pictures: whoever opens a broken one says the same, and no address in memory."""

import io

import numpy as np
import pytest
from PIL import Image

from instructvla.training.data.encoded_pictures import encoded, open_picture, problem_of
from instructvla.training.data.episode_checks import check_images
from instructvla.training.data.episode_shards import camera_sizes
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.samples import decoded
from tests.memory_episodes import bridge_recording, jpeg

NO_PICTURE = b"\xff\xd8\xff\xe0"


def broken_episode():
    raw = bridge_recording(0, observation__image_0=[NO_PICTURE] * 6)
    return read_mapping("bridge").episode(raw, 0)


def messages():
    (found, *others) = check_images(broken_episode(), samples=3)
    assert not others
    yield found.message
    for read in (lambda: open_picture(NO_PICTURE), lambda: decoded(NO_PICTURE, "here")):
        with pytest.raises(ValueError) as refusal:
            read()
        yield str(refusal.value)
    with pytest.raises(BadEpisodeError) as refusal:
        camera_sizes(broken_episode())
    yield str(refusal.value)


def test_no_reader_of_pictures_tells_an_address_in_memory():
    told = list(messages())
    assert len(told) == 4
    for message in told:
        assert "can't be decoded: its 4 bytes are of no known format" in message and "object at 0x" not in message


def test_a_good_picture_is_opened_without_decoding_it():
    picture = open_picture(jpeg(0, 32)[:-400])
    assert picture.size == (32, 32)
    with pytest.raises(
        BadEpisodeError, match="^here: the picture can't be decoded, the file is truncated.*; record it"
    ):
        decoded(jpeg(0, 32)[:-400], "here")


def test_a_picture_of_too_many_pixels_is_refused(monkeypatch):
    Image.new("L", (40, 40)).save(file := io.BytesIO(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="^frame 3 can't be decoded: .*decompression bomb"):
        open_picture(file.getvalue(), "frame 3")


def test_an_error_of_pillow_is_one_line():
    assert problem_of(OSError("image file is\ntruncated"), 7) == "image file is truncated"
    assert problem_of(OSError("cannot identify image file <_io.BytesIO object at 0x7f>"), 7).startswith("its 7 bytes")


def test_pictures_survive_their_encoding():
    gradient = np.linspace(0, 255, 64 * 64).reshape(64, 64, 1).repeat(3, axis=2).astype(np.uint8)
    with Image.open(io.BytesIO(encoded(gradient))) as picture:
        assert np.abs(np.asarray(picture).astype(int) - gradient).max() <= 4
