"""Claims about the bench of the readers; its times are not among them."""

import numpy as np
import pytest
from PIL import Image

from tests import bench_readers as bench
from tests.tiny_processor import tiny_processor


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return bench.measure(tmp_path_factory.mktemp("bench"), episodes=1, steps=4, rounds=1)


def test_every_format_stands_beside_its_bound(measured):
    lines = bench.table(*measured).splitlines()
    for contender in measured[2]:
        assert any(line.startswith(contender.bound) for line in lines)
        (line,) = (line for line in lines if line.startswith(contender.name))
        assert "%" in line and "most goes to" in line


def test_the_stages_of_one_run_make_up_the_whole(measured):
    for stages in measured[1].values():
        assert sum(stages[stage] for stage in bench.STAGES) == pytest.approx(stages["all"])


def test_all_formats_show_the_same_frames_in_the_same_order(measured):
    reference = decoded(measured[2][0])
    for contender in measured[2][1:]:
        frames = decoded(contender)
        frames = frames[1:-1] if len(frames) == len(reference) + 2 else frames  # Bridge's mapping drops both ends
        differences = np.abs(frames[:, None] - reference[None]).mean(axis=(2, 3, 4))
        assert differences.argmin(axis=1).tolist() == list(range(len(reference)))


def decoded(contender: bench.Contender) -> np.ndarray:
    frames = [
        bench.decoded_views({"primary": jpeg}, ["primary"], "")["primary"]
        for jpeg in contender.reader[0].images["primary"]
    ]
    return np.stack([np.asarray(frame, np.float32) for frame in frames])


def test_the_bound_computes_the_processor_s_inputs_before_they_are_normalised():
    picture = bench.Scene.drawn(0, 4).frame(0)
    assert picture.size == (bench.SIDE, bench.SIDE) and isinstance(picture, Image.Image)
    plain, _ = bench.plain_inputs(picture)
    inputs = tiny_processor(image_size=bench.VLM_SIDE, action_image_size=bench.EXPERT_SIDE)(images=picture)
    np.testing.assert_allclose(inputs["pixel_values"][0].numpy() / 2 + 0.5, plain.transpose(2, 0, 1), atol=1e-6)
