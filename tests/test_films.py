"""Claims about the films of episodes."""

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from instructvla.evaluation.tabletop import films
from instructvla.evaluation.tabletop.films import CAPTION, FRAMES_PER_STEP, Film
from instructvla.evaluation.tabletop.rollout import Assignment, rollouts
from tests.tabletop_policies import APPLE, CLOSE, Recorder, TalkingExpert, assignments

SIZE = 224


def film_of(path, policy, given, **options):
    with Film(path, size=SIZE) as film:
        return list(rollouts(policy, given, environments=1, watch=film, **options))


def frames_of(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def expert_film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    return path, film_of(path, TalkingExpert(), assignments(APPLE))


def test_a_film_plays_in_browsers_and_shows_each_step_in_real_time(expert_film):
    path, (outcome,) = expert_film
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 15
    frames = frames_of(path)
    assert frames[0].shape == (SIZE + CAPTION, SIZE, 3)
    still = round(films.START_SECONDS * 15) + round(films.END_SECONDS * 15)
    assert len(frames) == still + FRAMES_PER_STEP * (outcome.steps - 1)


def test_the_picture_moves_and_the_verdict_comes_at_the_end(expert_film):
    frames = frames_of(expert_film[0])
    assert np.abs(frames[0][:SIZE] - frames[-1][:SIZE]).mean() > 5
    corner = [frame[SIZE - 30 : SIZE - 5, 10:].astype(int) for frame in frames]
    green = [((one[..., 1] - one[..., 0] > 60) & (one[..., 1] - one[..., 2] > 40)).sum() for one in corner]
    assert green[-1] > 20 and green[-1] > 10 * max(1, green[len(green) // 2])


def test_an_episode_without_a_rule_ends_without_a_verdict(tmp_path, monkeypatch):
    verdicts = []
    monkeypatch.setattr(films, "write_verdict", lambda frame, bottom, success: verdicts.append(success))
    (given,) = assignments(APPLE)
    both = [given, Assignment("free", 0, given.trial, judged=False)]
    film_of(tmp_path / "film.gif", Recorder(), both, max_steps=1)
    assert verdicts == [False, None]


def test_a_gif_has_one_picture_per_step_and_opens(tmp_path):
    (outcome,) = film_of(tmp_path / "film.gif", Recorder(), assignments(APPLE), max_steps=4)
    with Image.open(tmp_path / "film.gif") as picture:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(picture)]
    assert len(durations) == outcome.steps + 1 and durations[1:-1] == [200] * 3


def test_episodes_follow_each_other_in_one_film(tmp_path):
    film_of(tmp_path / "film.gif", Recorder(), assignments(APPLE, CLOSE), max_steps=2)
    with Image.open(tmp_path / "film.gif") as picture:
        assert sum(1 for _ in ImageSequence.Iterator(picture)) == 6


def test_a_failed_run_leaves_no_film_and_the_old_one_stays(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")

    class Failing(Recorder):
        def act(self, moments):
            if self.batches:
                raise ValueError("no")
            return super().act(moments)

    with pytest.raises(ValueError, match="no"):
        film_of(path, Failing(), assignments(APPLE))
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("size", [64, 225])
def test_a_size_without_room_for_both_cameras_is_refused(size, tmp_path):
    with pytest.raises(ValueError, match=f"even and at least 224 px, got {size}"):
        Film(tmp_path / "film.mp4", size)
