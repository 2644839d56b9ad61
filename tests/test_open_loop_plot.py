"""The overlay plot: a panel per dimension with its name and unit, several chunks, a file written whole."""

import sys

import numpy as np
import pytest
from PIL import Image

from instructvla import InstructVLAConfig
from instructvla.nano import NANO_STATISTICS, nano_processor
from instructvla.training.open_loop import OpenLoopProbe, OpenLoopResult, OpenLoopSums
from instructvla.training.open_loop_plot import draw_overlay, plot_overlay
from tests.reaching_episodes import ReachingEpisodes
from tests.robot_frames import robot_frame

STATISTICS = {"reaching": NANO_STATISTICS["untrained"], "bridge": NANO_STATISTICS["untrained"]}


@pytest.fixture(scope="module")
def processor():
    return nano_processor(statistics=STATISTICS, control_rate_hz=None)


@pytest.fixture(scope="module")
def probe(processor):
    return OpenLoopProbe(ReachingEpisodes(2), processor, horizon=16, episodes=2, chunks_per_episode=2)


def result_of(probe, numbers):
    predictions = {number: probe.chunks[number].actions + 0.01 for number in numbers}
    return OpenLoopResult(OpenLoopSums.zeros(7), predictions)


def panels_of(figure):
    return [axes for axes in figure.axes if axes.axison]


def wide_processor():
    part = {"q01": [0.0] * 26, "q99": [1.0] * 26}
    return nano_processor(
        InstructVLAConfig.nano(action_dim=26),
        statistics={"bridge": {"action": part}},
        control_rate_hz={"bridge": 30.0},
        action_names=[f"joint_{dim}" for dim in range(26)],
        action_units=["rad"] * 25 + ["$ of force"],
        gripper_dims=[3],
    )


def test_there_is_a_panel_per_dimension_with_its_name_and_unit():
    processor = wide_processor()
    frame = robot_frame(actions=np.zeros((16, 26), np.float32))
    panels = panels_of(draw_overlay([(frame, np.ones((16, 26)))], processor))
    assert [axes.get_title() for axes in panels] == processor.action_names
    assert [axes.get_ylabel() for axes in panels] == processor.action_units


def test_recorded_steps_end_with_the_episode_and_chunks_stand_side_by_side(processor):
    pairs = [(robot_frame(number), np.zeros((16, 7))) for number in range(2)]  # 12 of 16 steps were recorded
    panel, *_, lowest = panels_of(draw_overlay(pairs, processor))
    recorded = [line for line in panel.lines if line.get_color() == "#222222"]
    assert [len(line.get_xdata()) for line in recorded] == [12, 12]
    np.testing.assert_array_equal(recorded[1].get_ydata(), pairs[1][0].actions[:12, 0])
    assert recorded[1].get_xdata()[0] > 15
    assert [label.get_text() for label in lowest.get_xticklabels()] == ["A", "B"]


def test_the_value_axis_shows_the_whole_range_and_all_that_was_recorded(processor):
    frame = robot_frame()
    low, high = panels_of(draw_overlay([(frame, np.zeros((16, 7)))], processor))[0].get_ylim()
    assert low < min(-0.05, frame.actions[:12, 0].min())
    assert high > max(0.05, frame.actions[:12, 0].max())


def test_captions_name_the_step_and_the_instruction_but_no_path(processor):
    frame = robot_frame(file_path="/data/robot/out.npy", instruction="put $5 in\nthe " + "very " * 60 + "big box")
    figure = draw_overlay([(frame, np.zeros((16, 7)))], processor)
    (caption,) = [text.get_text() for part in figure.subfigs for text in part.texts if "frame" in text.get_text()]
    assert caption.startswith("A   bridge/7, frame 0: “put $5 in the very")
    assert caption.endswith("…") and "\n" not in caption and "/data" not in caption


def test_the_file_is_a_picture_of_the_first_chunks(tmp_path, probe):
    plot_overlay(tmp_path / "plots" / "step_10.png", probe, result_of(probe, range(4)), chunks=3, title="step 10")
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["step_10.png"]
    with Image.open(tmp_path / "plots" / "step_10.png") as image:
        assert min(image.size) > 500


def test_a_rank_without_chunks_has_nothing_to_draw(tmp_path, probe):
    with pytest.raises(ValueError, match="nothing to draw: 0 predictions"):
        plot_overlay(tmp_path / "plot.png", probe, result_of(probe, []))
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path, probe, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"needs matplotlib: pip install 'instructvla\[eval\]'"):
        plot_overlay(tmp_path / "plot.png", probe, result_of(probe, [0]))
