"""Claims about what is found wrong with one episode, and that nothing is found with a good one."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episode_checks import blankness, check_episode, correlation, gripper_aperture
from instructvla.training.data.episodes import Annotation, Episode, Turn
from tests.memory_episodes import jpeg

STEPS = 24
BRIDGE = DatasetDescription(
    dataset="made",
    cameras=("primary",),
    action_names=("x", "gripper"),
    action_units=("m", "open fraction"),
    gripper_dims=(1,),
    state_names=("x", "gripper"),
    state_units=("m", "open fraction"),
)


def picture(brightness=None, size=(32, 32), kind="JPEG"):
    if brightness is None:
        return jpeg(0, size[0])
    Image.new("RGB", size, (brightness,) * 3).save(file := io.BytesIO(), kind)
    return file.getvalue()


def good_episode(**changes):
    """The gripper opens in the middle, and the state follows two steps later."""
    command = (np.arange(STEPS) >= STEPS // 2).astype(np.float32)
    position = np.cumsum(np.linspace(0.01, 0.02, STEPS)).astype(np.float32)
    values = {
        "dataset": "made",
        "episode_id": "a",
        "images": {"primary": [picture()] * STEPS},
        "actions": np.column_stack([np.gradient(position), command]).astype(np.float32),
        "states": np.column_stack([position, np.roll(command, 2)]).astype(np.float32),
        "instructions": ["open the drawer"] * STEPS,
        "control_rate_hz": 5.0,
    }
    values["states"][:2, 1] = 0
    return Episode(**(values | changes))


def findings(episode, description=BRIDGE):
    return [(found.check, found.message) for found in check_episode(episode, description, shortest=4, frames=3)]


def test_nothing_is_found_with_a_good_episode():
    assert findings(good_episode()) == []


def test_a_short_episode_is_found():
    good = good_episode()
    cut = replace(
        good,
        actions=good.actions[:3],
        states=good.states[:3],
        instructions=good.instructions[:3],
        images={"primary": good.images["primary"][:3]},
    )
    assert ("length", "it has 3 steps, fewer than 4") in findings(cut)


@pytest.mark.parametrize(("column", "name"), [("actions", "action"), ("states", "state")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_found_with_their_step(column, name, value):
    broken = getattr(good_episode(), column).copy()
    broken[5:7, 0] = value
    message = f"its {name} at step 5 is {value} in dimension 0 (2 such values)"
    assert ("finite", message) in findings(good_episode(**{column: broken}))


def test_columns_that_are_not_the_datasets_are_found():
    other = replace(good_episode(), images={"wrist": [picture()] * STEPS}, states=None)
    assert findings(other) == [
        ("sizes", "its state has 0 dimensions, the dataset's 2"),
        ("sizes", "its cameras are ['wrist'], the dataset's ['primary']"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "24 of its 24 steps have no instruction"),
        ("  ", "24 of its 24 steps have no instruction"),
        ("None", "its instruction is the text 'None'"),
    ],
)
def test_missing_instructions_are_found(text, message):
    assert findings(good_episode(instructions=[text] * STEPS)) == [("instruction", message)]


def test_texts_in_place_of_missing_motions_and_annotations_are_found():
    motions = [None, "move left", "None", *[None] * (STEPS - 3)]
    annotation = Annotation(caption=" ", questions=(Turn("What is it?", "A cup."), Turn("Where?", "")))
    assert findings(good_episode(language_motions=motions, annotation=annotation)) == [
        ("annotation", "its language motion at step 2 is the text 'None'"),
        ("annotation", "its caption is the text ' '"),
        ("annotation", "1 of its 2 questions lack a text; the first is 1"),
    ]
    fine = Annotation(caption="A table.", contexts=(Turn("I am thirsty.", "Here is a cup."),))
    assert findings(good_episode(language_motions=["stop"] * STEPS, annotation=fine)) == []


@pytest.mark.parametrize(("brightness", "kind"), [(0, "black"), (255, "blank"), (128, "blank")])
@pytest.mark.parametrize("file_type", ["JPEG", "PNG"])
def test_frames_that_show_nothing_are_found(brightness, kind, file_type):
    frames = [picture(brightness, kind=file_type)] * 13 + [picture()] * (STEPS - 13)
    message = f"primary: 2 of 3 frames seen are {kind}: 0, 12"
    assert findings(good_episode(images={"primary": frames})) == [("blank frames", message)]


def test_a_dark_frame_that_shows_something_is_no_black_one():
    pixels = np.random.default_rng(0).integers(0, 30, (32, 32, 3), np.uint8)
    Image.fromarray(np.repeat(np.repeat(pixels, 8, 0), 8, 1)).save(file := io.BytesIO(), "JPEG")
    assert blankness(file.getvalue()) is None


def test_frames_that_change_size_are_found():
    frames = [picture()] * 7 + [picture(size=(16, 16))] * (STEPS - 7)
    found = findings(good_episode(images={"primary": frames}))
    assert found == [("images", "primary: frames are 32×32, but from step 7 on 16×16")]


def test_the_broken_pictures_of_a_camera_are_one_finding():
    noise = [picture()] * 5 + [b"no picture"] * (STEPS - 5)
    told = "primary: frame 5 can't be decoded: its 10 bytes are of no known format; others that can't be: 6, 7, 8 and "
    assert findings(good_episode(images={"primary": noise})) == [("images", f"{told}15 more")]
    cut = [jpeg(0, 64)[:-1500]] * STEPS
    ((check, message),) = findings(good_episode(images={"primary": cut}))
    assert check == "images" and message.startswith("primary: frame 0 can't be decoded: image file is truncated")
    one = [picture()] * (STEPS - 1) + [b"no picture"]  # the last frame is among those decoded
    last = f"primary: frame {STEPS - 1} can't be decoded: its 10 bytes are of no known format"
    assert findings(good_episode(images={"primary": one})) == [("images", last)]


def test_a_robot_that_never_moves_is_found():
    frozen = np.repeat(good_episode().states[:1], STEPS, axis=0)
    assert findings(good_episode(states=frozen)) == [("frozen", "its state is the same at all 24 steps")]


def test_a_gripper_beyond_its_range_is_found():
    signed = good_episode().actions * [1, 2] - np.float32([0, 1])
    ((check, message),) = findings(good_episode(actions=signed.astype(np.float32)))
    assert check == "gripper" and "spans -1 to 1" in message


def test_a_gripper_of_the_wrong_sign_is_found():
    inverted = good_episode().actions.copy()
    inverted[:, 1] = 1 - inverted[:, 1]
    ((check, message),) = findings(good_episode(actions=inverted))
    assert check == "gripper" and "closes when the action opens it" in message


def test_a_state_that_counts_closing_is_understood():
    description = replace(BRIDGE, state_units=("m", "closed fraction"))
    states = good_episode().states * np.float32([1, -1]) + np.float32([0, 1])
    assert findings(good_episode(states=states), description) == []
    assert [check for check, _ in findings(good_episode(), description)] == ["gripper"]


def test_the_motion_settings_tell_the_gripper_when_units_do_not():
    settings = {"gripper": 1, "gripper_open_sign": -1}
    assert gripper_aperture(replace(BRIDGE, state_units=("m", "m"), motion=settings)) == (1, -1)
    assert gripper_aperture(BRIDGE) == (1, 1)
    assert gripper_aperture(replace(BRIDGE, state_units=("m", "m"))) is None


def test_a_gripper_that_stays_as_it_is_says_nothing_about_its_sign():
    actions = good_episode().actions.copy()
    actions[:, 1] = 1
    assert findings(good_episode(actions=actions)) == []


def test_correlation_is_that_of_numpy_and_unknown_without_change():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 50))
    assert correlation(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert correlation(first, np.ones(50)) is None and correlation(first[:3], second[:3]) is None
