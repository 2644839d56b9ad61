"""Each time gets the frame that is shown then, however the video stores it; a video is never filled up."""

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image

from instructvla.training.data import video_frames
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.video_frames import TimedFrame, frames_at, pictures_at
from tests.lerobot_writer import CODECS, number_on, write_video

FPS = 10
HALF = 0.5 / FPS


def numbers_at(path, times, **options):
    return [number_on(picture) for picture in pictures_at(path, times, HALF, **options)]


def seconds(*frames):
    return np.array(frames) / FPS


@pytest.fixture(scope="module", params=CODECS)
def video(request, tmp_path_factory):
    """Frame i of 60 shows 300 + i; key frames are 6 (H.264) or 4 (AV1) apart."""
    path = tmp_path_factory.mktemp("video") / f"{request.param}.mp4"
    write_video(path, range(300, 360), FPS, request.param)
    return path


def test_every_time_gets_its_frame(video):
    assert numbers_at(video, seconds(*range(60))) == list(range(300, 360))


def test_the_h264_video_stores_frames_in_another_order(tmp_path):
    write_video(tmp_path / "video.mp4", range(20), FPS, "h264")
    with av.open(str(tmp_path / "video.mp4")) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert stamps != sorted(stamps)


@pytest.mark.parametrize("first", range(24, 37))
def test_a_part_begins_at_any_frame(video, first):
    assert numbers_at(video, seconds(*range(first, first + 5))) == list(range(300 + first, 305 + first))


def test_only_the_part_is_decoded(video, monkeypatch):
    decoded = []
    monkeypatch.setattr(video_frames, "TimedFrame", lambda *given: decoded.append(given) or TimedFrame(*given))
    assert numbers_at(video, seconds(40, 41)) == [340, 341]
    assert len(decoded) <= 9  # from the key frame before, to the frame after


def test_times_may_be_anywhere_in_half_a_period(video):
    jitter = np.random.default_rng(0).uniform(-0.45, 0.45, 60) / FPS
    assert numbers_at(video, seconds(*range(60)) + jitter) == list(range(300, 360))


def test_a_frame_serves_all_rows_that_are_near_it(video):
    assert numbers_at(video, [1.0, 1.02, 1.04, 1.1]) == [310, 310, 310, 311]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_time_counts_from_the_first_frame_whatever_its_stamp(tmp_path, suffix):
    path = tmp_path / f"video.{suffix}"
    write_video(path, range(10), FPS, times=[Fraction(i, FPS) + Fraction(7, 3) for i in range(10)])
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time > 0
    assert numbers_at(path, seconds(*range(10))) == list(range(10))
    assert numbers_at(path, seconds(7, 8, 9)) == [7, 8, 9]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_part_begins_where_key_frames_are_decoded_early_but_shown_late(tmp_path, suffix, monkeypatch):
    open_groups = {"bf": "3", "b_strategy": "0", "g": "8", "x264-params": "open-gop=1:scenecut=0"}
    monkeypatch.setitem(CODECS, "h264", ("libx264", open_groups))
    path = tmp_path / f"video.{suffix}"
    write_video(path, range(60), FPS)
    for first in range(57):
        assert numbers_at(path, seconds(*range(first, first + 3))) == [first, first + 1, first + 2]


@pytest.mark.parametrize("time_base", [Fraction(1, 30), Fraction(1, 600), Fraction(1, 90000)])
def test_any_time_base_gives_the_same_frames(tmp_path, time_base):
    path = tmp_path / "video.mp4"
    write_video(path, range(30), 30, time_base=time_base)
    assert [number_on(p) for p in pictures_at(path, np.arange(30, dtype=np.float32) / 30, 1 / 60)] == list(range(30))


def test_of_a_variable_rate_the_nearest_frame_is_taken(tmp_path):
    path = tmp_path / "video.mp4"
    times = [Fraction(n, 100) for n in (0, 8, 13, 22, 30, 37, 45, 50)]
    write_video(path, range(8), FPS, times=times)
    assert numbers_at(path, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]) == [0, 1, 3, 4, 5, 7]


def test_a_dropped_frame_is_missed_by_row_and_time(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, range(9), FPS, times=[Fraction(i + (i >= 5), FPS) for i in range(9)])
    with pytest.raises(BadEpisodeError, match=r"video\.mp4: row 5 needs a frame within 0\.0500 s of 0\.5000 s"):
        numbers_at(path, seconds(*range(10)))


def test_a_short_video_is_not_filled_up(video):
    with pytest.raises(BadEpisodeError, match=r"row 60 needs a frame .* of 6\.0000 s, but the nearest is at 5\.9000 s"):
        numbers_at(video, seconds(*range(61)))


def test_frames_from_the_end_on_belong_to_the_next_episode(video):
    assert numbers_at(video, seconds(20, 21, 22), end=2.3) == [320, 321, 322]
    with pytest.raises(BadEpisodeError, match=r"row 3 needs a frame .* of 2\.3000 s, but the nearest is at 2\.2000 s"):
        numbers_at(video, seconds(20, 21, 22, 23), end=2.3)


def test_no_times_need_no_frames(video):
    assert pictures_at(video, [], HALF) == []


@pytest.mark.parametrize("times", [[0.0, 0.2, 0.1], [0.0, 0.1, float("nan")]])
def test_times_that_go_back_are_refused(video, times):
    with pytest.raises(BadEpisodeError, match="the time stamp of row 2, .* does not follow the one before"):
        pictures_at(video, times, HALF)


def test_pictures_are_jpeg_with_full_colour_or_lossless_png(video):
    jpeg, png = (pictures_at(video, [0.5], HALF, picture_format=name)[0] for name in ("jpeg", "png"))
    frame = next(frames_at(video, [0.5], HALF)).frame.to_ndarray(format="rgb24")
    assert np.array_equal(np.asarray(Image.open(BytesIO(png))), frame)
    with Image.open(BytesIO(jpeg)) as picture:
        assert picture.format == "JPEG"
        assert [component[1:3] for component in picture.layer] == [(1, 1)] * 3  # 4:4:4
        assert np.abs(np.asarray(picture).astype(int) - frame).mean() < 2


def test_colours_are_those_that_were_filmed(tmp_path):
    filmed = np.zeros((64, 64, 3), np.uint8) + np.array([200, 60, 20], np.uint8)
    with av.open(str(tmp_path / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(filmed, format="rgb24")))
        container.mux(stream.encode())
    [picture] = pictures_at(tmp_path / "video.mp4", [0.0], HALF)
    assert np.abs(np.asarray(Image.open(BytesIO(picture))).astype(int) - filmed).max() <= 4


def test_a_missing_video_is_named(tmp_path):
    with pytest.raises(BadEpisodeError, match=r"gone\.mp4 is missing; copy the video again"):
        pictures_at(tmp_path / "gone.mp4", [0.0], HALF)


@pytest.mark.parametrize("keep", [0, 100, 1000])
def test_a_truncated_video_is_named(video, tmp_path, keep):
    (tmp_path / "video.mp4").write_bytes(video.read_bytes()[:keep])
    with pytest.raises(BadEpisodeError, match=r"video\.mp4 is truncated or no video .*copy it again"):
        pictures_at(tmp_path / "video.mp4", [0.0], HALF)


def test_damaged_frames_are_not_taken(video, tmp_path):
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(video.read_bytes())
    hit = max(packets[1:], key=lambda packet: packet.size)
    content[hit.pos + 5 : hit.pos + hit.size] = bytes(hit.size - 5)
    (tmp_path / "video.mp4").write_bytes(content)
    with pytest.raises(BadEpisodeError, match=r"video\.mp4"):
        pictures_at(tmp_path / "video.mp4", seconds(*range(60)), HALF)
