"""Claims about language motion."""

import re
from dataclasses import replace

import numpy as np
import pytest

from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.field_mapping import read_mapping, shipped_mappings
from instructvla.training.data.language_motion import MotionSettings, language_motion, with_language_motion

PHRASES = (
    r"move(?= )( forward| backward)?( left| right)?( up| down)?",
    r"tilt (up|down)",
    r"rotate (counter)?clockwise",
    r"(open|close) gripper",
)
SETTINGS = MotionSettings(rotation=(3, 4, 5), rotation_form="euler_xyz", gripper=6)
FRACTAL = MotionSettings(
    window=2,
    translation_threshold=0.02,
    tilt_threshold=0.06,
    turn_threshold=0.1,
    gripper_threshold=0.02,
    rotation=(3, 4, 5, 6),
    rotation_form="quaternion_xyzw",
    gripper=7,
    gripper_open_sign=-1,
)


def motion_of(change: dict[int, float], settings: MotionSettings = SETTINGS, state_dim: int = 8) -> str:
    """The text for two states that differ by `change`, dimension → difference."""
    states = np.zeros((2, state_dim))
    for dim, value in change.items():
        states[1, dim] = value
    return language_motion(states, settings)[0]


def random_walk(steps: int = 400, seed: int = 0) -> np.ndarray:
    """(steps, 7): position, Euler angles, gripper; some directions beyond each threshold, some below."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, [0.02] * 3 + [0.15] * 3, (steps, 6)) * rng.choice([0.2, 1, 2], (steps, 1)), axis=0)
    gripper = np.clip(np.cumsum(rng.choice([0, 0, 0, 0.5, -0.5], steps)), 0, 1)
    return np.column_stack([walk, gripper])


def quaternion_xyzw(angles: np.ndarray) -> np.ndarray:
    """The half-angle closed form for Rz(yaw) · Ry(pitch) · Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles.T / 2), np.sin(angles.T / 2)
    return np.stack(
        [
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        ],
        axis=1,
    )


def rotation_matrices(angles: np.ndarray) -> np.ndarray:
    """(T, 3, 3): Rz(yaw) · Ry(pitch) · Rx(roll), axis by axis."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(angles.T), np.sin(angles.T)
    one, zero = np.ones_like(cr), np.zeros_like(cr)
    about_x = np.array([[one, zero, zero], [zero, cr, -sr], [zero, sr, cr]]).transpose(2, 0, 1)
    about_y = np.array([[cp, zero, sp], [zero, one, zero], [-sp, zero, cp]]).transpose(2, 0, 1)
    about_z = np.array([[cy, -sy, zero], [sy, cy, zero], [zero, zero, one]]).transpose(2, 0, 1)
    return about_z @ about_y @ about_x


def turn_words(start: np.ndarray, end: np.ndarray, settings: MotionSettings) -> list[str]:
    """What the rotation between two matrices is called, read from the matrix itself."""
    turn = end @ start.T
    pitch, yaw = np.arcsin(-turn[2, 0]), np.arctan2(turn[1, 0], turn[0, 0])
    tilt = "tilt up" if pitch < -settings.tilt_threshold else "tilt down" if pitch > settings.tilt_threshold else ""
    side = (
        "counterclockwise" if yaw > settings.turn_threshold else "clockwise" if yaw < -settings.turn_threshold else ""
    )
    return [word for word in (tilt, side and f"rotate {side}") if word]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "stop"),
        ({0: 0.05}, "move forward"),
        ({0: -0.05}, "move backward"),
        ({1: 0.05}, "move left"),
        ({1: -0.05}, "move right"),
        ({2: 0.05}, "move up"),
        ({2: -0.05}, "move down"),
        ({4: -0.4}, "tilt up"),
        ({4: 0.4}, "tilt down"),
        ({5: 0.4}, "rotate counterclockwise"),
        ({5: -0.4}, "rotate clockwise"),
        ({6: 1}, "open gripper"),
        ({6: -1}, "close gripper"),
        ({1: -0.05, 6: 1}, "move right, open gripper"),
        ({0: 0.05, 1: 0.05, 2: -0.05, 5: 0.4, 6: -1}, "move forward left down, rotate counterclockwise, close gripper"),
    ],
)
def test_each_direction_has_its_word_in_a_fixed_order(change, text):
    assert motion_of(change) == text


def test_the_joiner_of_the_papers_text_can_be_chosen():
    assert motion_of({1: -0.05, 6: 1}, replace(SETTINGS, joiner=" and ")) == "move right and open gripper"


@pytest.mark.parametrize(("dim", "threshold"), [(0, 0.03), (1, 0.03), (2, 0.03), (4, 0.3), (5, 0.3), (6, 0.03)])
def test_a_movement_below_its_threshold_is_not_named(dim, threshold):
    assert motion_of({dim: threshold * 0.99}) == "stop"
    assert motion_of({dim: threshold * 1.01}) != "stop"


def test_a_drift_in_a_large_movement_is_not_named():
    assert motion_of({0: 0.3, 1: 0.05}) == "move forward"
    assert motion_of({0: 0.3, 1: 0.2}) == "move forward left"
    assert motion_of({0: 0.3, 1: 0.3, 2: 0.3}) == "move forward left up"


def test_the_window_looks_ahead_and_ends_with_the_episode():
    states = np.zeros((6, 7))
    states[:, 0] = [0, 0, 0, 0.05, 0.05, 0.05]
    assert language_motion(states, SETTINGS) == ["move forward"] * 3 + ["stop"] * 3
    assert language_motion(states, replace(SETTINGS, window=1)) == ["stop", "stop", "move forward"] + ["stop"] * 3
    assert language_motion(states, replace(SETTINGS, window=100)) == ["move forward"] * 3 + ["stop"] * 3
    assert language_motion(states[:1], SETTINGS) == ["stop"]


@pytest.mark.parametrize("form", ["euler_xyz", "quaternion_xyzw", "quaternion_wxyz"])
def test_the_words_of_a_rotation_are_those_of_its_relative_rotation_matrix(form):
    walk = random_walk()
    angles = walk[:, 3:6] + [1.5, 0.7, 3.0]  # far from 0, where differences of Euler angles would mislead
    quaternions = quaternion_xyzw(angles)
    rotation = {"euler_xyz": angles, "quaternion_xyzw": quaternions, "quaternion_wxyz": quaternions[:, [3, 0, 1, 2]]}
    dims = tuple(range(3, 3 + rotation[form].shape[1]))
    settings = MotionSettings(window=2, rotation=dims, rotation_form=form, tilt_threshold=0.1, turn_threshold=0.15)
    motions = language_motion(np.column_stack([np.zeros((len(walk), 3)), rotation[form]]), settings)
    matrices = rotation_matrices(angles)
    expected = [turn_words(matrices[step], matrices[step + 2], settings) for step in range(len(walk) - 2)]
    assert motions[:-2] == [", ".join(words) or "stop" for words in expected]
    assert len(set(motions)) == 9


def test_an_axis_angle_turn_about_one_axis_is_named_by_that_axis():
    settings = replace(SETTINGS, rotation_form="axis_angle")
    assert motion_of({5: 0.4}, settings) == "rotate counterclockwise"
    states = np.zeros((2, 7))
    states[:, 3] = [np.pi - 0.01, -np.pi + 0.01]  # 0.02 rad apart, about x
    assert language_motion(states, settings) == ["stop", "stop"]


def test_a_quaternions_sign_and_length_mean_nothing():
    states = np.column_stack([random_walk()[:, :3], quaternion_xyzw(random_walk()[:, 3:6]), random_walk()[:, 6]])
    other = states.copy()
    other[::3, 3:7] *= -1
    other[::2, 3:7] *= 2.5
    assert language_motion(other, FRACTAL) == language_motion(states, FRACTAL)


def test_mirroring_left_and_right_swaps_their_words_and_the_turns_only():
    walk = random_walk()
    mirrored = walk * [1, -1, 1, -1, 1, -1, 1]  # a reflection in y turns the other way about x and z
    swap = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise"}
    swapped = [
        re.sub(r"\w+", lambda word: swap.get(word[0], word[0]), motion) for motion in language_motion(walk, SETTINGS)
    ]
    assert language_motion(mirrored, SETTINGS) == swapped
    assert swapped != language_motion(walk, SETTINGS)


@pytest.mark.parametrize(
    ("axis", "words"), [("forward", "forward backward"), ("left", "left right"), ("up", "up down")]
)
def test_turning_an_axis_around_swaps_its_two_words(axis, words):
    names = words.split()
    swap = dict(zip(names, reversed(names), strict=True))
    walk = random_walk()
    turned = replace(SETTINGS, **{axis: "-" + getattr(SETTINGS, axis)[1:]})
    motions = language_motion(walk, SETTINGS)
    swapped = [re.sub(r"(?<!tilt )\b\w+", lambda word: swap.get(word[0], word[0]), motion) for motion in motions]
    assert language_motion(walk, turned) == swapped != motions


def test_axes_may_be_named_in_any_order():
    settings = replace(SETTINGS, forward="-y", left="+x")
    assert motion_of({1: -0.05}, settings) == "move forward"
    assert motion_of({0: -0.05}, settings) == "move right"


def test_a_still_arm_with_a_moving_gripper_only_opens_and_closes():
    walk = random_walk()
    walk[:, :6] = walk[0, :6]
    assert set(language_motion(walk, SETTINGS)) == {"stop", "open gripper", "close gripper"}


def test_random_walks_follow_the_grammar_and_give_the_same_text_again():
    motions = language_motion(random_walk(), SETTINGS)
    for motion in set(motions) - {"stop"}:
        kinds = [[bool(re.fullmatch(kind, phrase)) for kind in PHRASES].index(True) for phrase in motion.split(", ")]
        assert kinds == sorted(set(kinds)), motion
    assert len(set(motions)) > 100
    assert language_motion(random_walk().astype(np.float32), SETTINGS) == motions


def test_where_the_robot_starts_changes_nothing():
    moved = random_walk() + [1, -2, 0.5, 0, 0, 0, 0]
    assert language_motion(moved, SETTINGS) == language_motion(random_walk(), SETTINGS)


def test_a_closing_dimension_is_read_the_other_way_round():
    assert motion_of({6: 1}, replace(SETTINGS, gripper_open_sign=-1)) == "close gripper"


def test_what_the_settings_leave_out_is_not_named():
    assert motion_of({5: 1, 6: 1, 0: 0.05}, MotionSettings()) == "move forward"


def test_the_first_tilt_axis_with_a_movement_decides():
    bridge = replace(SETTINGS, tilt_up=("+x", "+y"))
    assert motion_of({3: 0.4}, bridge) == motion_of({4: 0.4}, bridge) == "tilt up"
    assert motion_of({3: -0.4, 4: 0.4}, bridge) == "tilt down"


def episode(states: np.ndarray | None, motions: list[str | None] | None = None) -> Episode:
    steps = 3 if states is None else len(states)
    actions = np.zeros((steps, 7), np.float32)
    return Episode("bridge", "7", {}, actions, states, [None] * steps, 5.0, language_motions=motions)


def test_only_the_missing_motions_of_an_episode_are_computed():
    states = np.zeros((3, 7), np.float32)
    states[:, 0] = [0, 0.05, 0.1]
    assert with_language_motion(episode(states), SETTINGS).language_motions == ["move forward"] * 2 + ["stop"]
    partly = with_language_motion(episode(states, ["move up", None, None]), SETTINGS)
    assert partly.language_motions == ["move up", "move forward", "stop"]
    whole = episode(states, ["move up"] * 3)
    assert with_language_motion(whole, SETTINGS) is whole
    assert with_language_motion(episode(None), SETTINGS).language_motions is None


def test_states_that_are_no_numbers_name_the_episode_step_and_dimension():
    states = np.zeros((3, 7), np.float32)
    states[1, 5] = np.nan
    with pytest.raises(BadEpisodeError, match=r"bridge/7: no language motion: .*step 1 has nan in dimension 5"):
        with_language_motion(episode(states), SETTINGS)
    with pytest.raises(ValueError, match="step 0 has a quaternion of length 0"):
        language_motion(np.zeros((3, 8)), FRACTAL)


def test_states_without_a_dimension_that_the_settings_name_are_refused():
    with pytest.raises(ValueError, match="state dimension 7, but the states have 7 dimensions"):
        language_motion(np.zeros((3, 7)), FRACTAL)
    with pytest.raises(ValueError, match=r"\(T, state_dim\)"):
        language_motion(np.zeros(7), SETTINGS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"windows": 3}, "motion has no windows; its fields are window, "),
        ({"window": 0}, "window must be a whole number of steps from 1 on, got 0"),
        ({"window": 2.5}, "window must be a whole number"),
        ({"tilt_threshold": -1}, "tilt_threshold must be a number above 0, got -1"),
        ({"translation_threshold": float("nan")}, "translation_threshold must be"),
        ({"gripper_open_sign": 0}, "gripper_open_sign must be 1 or -1"),
        ({"rotation": [3, 4, 5]}, "rotation_form must be one of euler_xyz, .*got None"),
        ({"rotation": [3, 4, 5], "rotation_form": "quaternion_xyzw"}, "rotation must name 4 state dimensions"),
        ({"position": [0, 1]}, "position must name 3 state dimensions"),
        ({"position": 3}, "position must be a list, got 3"),
        ({"gripper": -1}, "a state dimension is a number from 0 on, got -1"),
        ({"forward": "x"}, "'x' is no axis; give one of"),
        ({"forward": "+y"}, "must be three different axes"),
    ],
)
def test_wrong_settings_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        MotionSettings.from_dict(values)


@pytest.mark.parametrize("name", ["bridge", "fractal", "libero"])
def test_shipped_mappings_read_their_own_states(name):
    assert name in shipped_mappings()
    mapping = read_mapping(name)
    settings = MotionSettings.from_dict(mapping.motion)
    names = mapping.state.names
    assert [names[dim] for dim in settings.position] == ["x", "y", "z"]
    assert [names[dim] for dim in settings.rotation] == {
        "euler_xyz": ["roll", "pitch", "yaw"],
        "axis_angle": ["rx", "ry", "rz"],
        "quaternion_xyzw": ["qx", "qy", "qz", "qw"],
    }[settings.rotation_form]
    assert "gripper" in names[settings.gripper] or "finger" in names[settings.gripper]
    closes = "closed" in mapping.state.units[settings.gripper]
    assert settings.gripper_open_sign == (-1 if closes else 1)
