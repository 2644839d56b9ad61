"""Claims about the observations that a policy server reads."""

import numpy as np
import pytest

from instructvla.evaluation.policy_observations import MAX_INSTRUCTION, ObservationReader

FRAME = np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3)
ONE = ObservationReader(["primary"], None, ["bridge"])
TWO = ObservationReader(["primary", "wrist"], 8, ["bridge", "fractal"])


def one(**changes):
    return {"images": {"primary": FRAME}, "prompt": "pick it up"} | changes


def two(**changes):
    both = {"primary": FRAME, "wrist": FRAME}
    return {"images": both, "prompt": "go", "state": np.zeros(8), "unnorm_key": "fractal"} | changes


def test_words_can_be_asked_for_before_the_action_never_or_beside_it():
    assert [ONE.read(one(think=think)).think for think in (True, np.False_, "background", None)] == [
        True,
        False,
        "background",
        None,
    ]


def test_the_own_form_with_all_its_options_is_read():
    request = TWO.read(two(state=[0.5] * 8, think=False, reuse_latent=True, reset=True, seed=np.int64(3)))
    assert list(request.images) == ["primary", "wrist"] and np.array_equal(request.images["wrist"], FRAME)
    assert request.instruction == "go" and request.state.tolist() == [0.5] * 8
    assert (request.unnorm_key, request.think, request.reuse_latent) == ("fractal", False, True)
    assert (request.reset, request.seed, request.ignored) == (True, 3, ())


def test_left_out_and_none_options_are_the_defaults():
    options = dict.fromkeys(["unnorm_key", "think", "reuse_latent", "reset", "seed", "state"])
    for request in (ONE.read(one()), ONE.read(one(**options))):
        assert (request.unnorm_key, request.think, request.seed, request.state) == (None, None, None, None)
        assert request.reuse_latent is False and request.reset is False


def test_one_camera_needs_no_name_and_the_instruction_may_be_called_so():
    request = ONE.read({"images": FRAME, "instruction": "stop"})
    assert np.array_equal(request.images["primary"], FRAME) and request.instruction == "stop"


def test_pictures_with_channels_first_are_turned():
    assert np.array_equal(ONE.read(one(images=FRAME.transpose(2, 0, 1))).images["primary"], FRAME)


def test_openpi_libero_observations_are_read():
    other = FRAME[::-1]
    state = np.arange(8.0)
    flat = {"observation/image": FRAME, "observation/wrist_image": other, "observation/state": state, "prompt": "go"}
    request = TWO.read(flat | {"unnorm_key": "bridge"})
    assert np.array_equal(request.images["primary"], FRAME) and np.array_equal(request.images["wrist"], other)
    assert request.state.tolist() == state.tolist() and request.ignored == ()


def test_openpi_droid_observations_are_read_and_what_is_not_used_is_listed():
    flat = {
        "observation/exterior_image_1_left": FRAME,
        "observation/wrist_image_left": FRAME,
        "observation/joint_position": np.zeros(7),
        "prompt": "go",
    }
    request = ONE.read(flat)
    assert list(request.images) == ["primary"]
    assert request.ignored == ("observation/wrist_image_left", "observation/joint_position")


def test_a_flat_picture_may_have_the_cameras_own_name():
    assert list(ONE.read({"observation/primary": FRAME, "prompt": "go"}).images) == ["primary"]


def test_a_reset_alone_needs_nothing_else():
    request = TWO.read({"reset": True})
    assert request.reset and request.images == {}


BAD = {
    "a list": (ONE, [1], "map with text keys"),
    "number keys": (ONE, {1: 2}, "map with text keys"),
    "nothing": (ONE, {}, "cameras"),
    "a misspelt option": (ONE, one(reuse_latents=True), "nearest is 'reuse_latent'"),
    "no instruction": (ONE, {"images": FRAME}, "instruction once"),
    "two instructions": (ONE, one(instruction="and this"), "instruction once"),
    "an empty instruction": (ONE, one(prompt=" \n"), "says something"),
    "an instruction of bytes": (ONE, one(prompt=b"go"), "says something"),
    "a whole book": (ONE, one(prompt="x" * (MAX_INSTRUCTION + 1)), "at most 2000"),
    "an unknown camera": (ONE, one(images={"front": FRAME}), r"\['primary'\].*\['front'\]"),
    "a missing camera": (TWO, two(images={"primary": FRAME}), "wrist"),
    "one array for two cameras": (TWO, two(images=FRAME), "a map with the cameras"),
    "pictures in both forms": (ONE, one(**{"observation/image": FRAME}), "give them once"),
    "a camera under two names": (
        ONE,
        {"observation/image": FRAME, "observation/primary": FRAME, "prompt": "go"},
        "given twice",
    ),
    "a picture of reals": (ONE, one(images=FRAME / 255), "uint8 array.*float64"),
    "a picture of bytes": (ONE, one(images=FRAME.tobytes()), "uint8 array.*bytes"),
    "a grey picture": (ONE, one(images=FRAME[..., 0]), "height, width, 3"),
    "a batch of pictures": (ONE, one(images=FRAME[None]), "height, width, 3"),
    "a sliver": (ONE, one(images=np.zeros((1, 4000, 3), np.uint8)), "16 to 4096"),
    "a state for a model without": (ONE, one(state=np.zeros(8)), "takes no state"),
    "no state": (TWO, two(state=None), "needs a state of 8"),
    "a short state": (TWO, two(state=np.zeros(7)), "8 finite numbers"),
    "a state with NaN": (TWO, two(state=[np.nan] * 8), "8 finite numbers"),
    "a state of words": (TWO, two(state=["left"] * 8), "8 numbers"),
    "a ragged state": (TWO, two(state=[[1], [2, 3]]), "8 numbers"),
    "no key of several": (TWO, two(unnorm_key=None), "bridge.*fractal"),
    "an unknown key": (TWO, two(unnorm_key="fractl"), "nearest.*'fractal'"),
    "a key that is no text": (TWO, two(unnorm_key=3), "unknown unnorm_key"),
    "a list as a flag": (ONE, one(think=[1]), "think must be true, false or 'background'"),
    "an unknown way to think": (ONE, one(think="later"), "think must be true, false or 'background', got 'later'"),
    "a negative seed": (ONE, one(seed=-1), "seed"),
    "a fraction as a delay": (ONE, one(delay=0.5), "delay must be an integer"),
    "one previous action": (ONE, one(previous_actions=np.zeros(7)), "previous_actions must be finite"),
    "a flag as a seed": (ONE, one(seed=True), "seed"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_observation_is_refused_with_what_is_accepted(name):
    reader, message, reason = BAD[name]
    with pytest.raises(ValueError, match=reason) as caught:
        reader.read(message)
    assert len(str(caught.value)) < 500
