"""The processor: shapes and values of its outputs, refusals, saving and loading."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla.processing import InstructVLAProcessor
from tests.parity import load_fixture
from tests.tiny_processor import SPECIAL_TOKENS, STATISTICS, TWO_DATASETS, byte_tokenizer, tiny_processor

FRAME = Image.new("RGB", (8, 8))


@pytest.fixture(scope="module")
def processor() -> InstructVLAProcessor:
    return tiny_processor()


@pytest.fixture
def frame() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


# Action inputs


def test_an_instruction_and_an_image_give_the_whole_models_inputs(processor, frame):
    inputs = processor(images=frame, text="pick up the can")
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values", "action_pixel_values"}
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    assert inputs["action_pixel_values"].shape == (1, 1, 3, 14, 14)
    assert {inputs[name].dtype for name in ("pixel_values", "action_pixel_values")} == {torch.float32}
    assert {inputs[name].dtype for name in ("input_ids", "attention_mask")} == {torch.int64}


@pytest.mark.parametrize("tensors", ["pt", "np"])
def test_both_halves_together_are_the_whole(frame, tensors):
    processor = tiny_processor(state_dim=3)
    state = [0.5, 0.0, 3.0]
    whole = processor(images=frame, text="go", state=state, return_tensors=tensors)
    halves = processor.prompt_inputs(frame, "go") | processor.action_inputs(frame, state)
    assert set(whole) == set(halves)
    assert len(whole) == 5
    assert all(torch.equal(torch.as_tensor(whole[name]), halves[name]) for name in whole)


def test_each_row_of_a_batch_is_as_if_alone(frame):
    processor = tiny_processor(state_dim=3)
    frames = [frame, frame.resize((50, 20))]
    texts, states = ["go", "pick up the can"], np.array([[0.5, 0.0, 3.0], [1.0, 1.0, 1.0]])
    batch = processor(images=frames, text=texts, state=states)
    for row in range(2):
        alone = processor(images=frames[row], text=texts[row], state=states[row])
        kept = batch["attention_mask"][row].bool()
        assert torch.equal(batch["input_ids"][row][kept], alone["input_ids"][0])
        for name in ("pixel_values", "action_pixel_values", "state"):
            assert torch.equal(batch[name][row], alone[name][0])


def test_the_vlm_sees_the_cameras_side_by_side_and_the_expert_one_by_one_as_released():
    tensors, _ = load_fixture("wrist_view")
    processor = tiny_processor(cameras=["primary", "wrist"], image_size=56, action_image_size=56, action_crop_pct=0.875)
    images = {"wrist": tensors["in.wrist_image"].numpy(), "primary": tensors["in.image"].numpy()}
    inputs = processor(images=images, text="go")
    rounded = inputs["pixel_values"].bfloat16().float()  # the released code casts the VLM's pixels
    torch.testing.assert_close(rounded, tensors["out.vlm_pixel_values"], rtol=1e-4, atol=1e-6)
    expert = inputs["action_pixel_values"][0]
    torch.testing.assert_close(expert, tensors["out.dino_pixel_values"], rtol=1e-4, atol=1e-6)


def test_images_alone_give_pixels_alone(processor, frame):
    assert set(processor(images=[frame, frame])) == {"pixel_values", "action_pixel_values"}


def test_a_given_image_is_not_changed(processor, frame):
    before = frame.tobytes(), frame.mode, frame.size
    processor(images=frame, text="go")
    assert (frame.tobytes(), frame.mode, frame.size) == before


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_states_of_any_kind_are_normalized_to_float32(frame, kind):
    state = tiny_processor(state_dim=3).action_inputs(frame, kind([1.0, 0.0, 7.0]))["state"]
    assert state.dtype == torch.float32
    # float32 rounding of float64 arithmetic, and the released denominator's 1e-8
    torch.testing.assert_close(state, torch.tensor([[1.0, 0.0, 0.0]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "needs a state of 3 values, got none"),
        ([0.0, 1.0], r"must have 3 values in the last dimension, got shape \(2,\)"),
        (np.zeros((2, 3)), r"must have shape \(1, 3\), a row per image, got \(2, 3\)"),
        (np.zeros((1, 1, 3)), r"must have shape \(1, 3\)"),
        ([0.0, float("nan"), 1.0], "state must be finite, got nan"),
        ([0.0, float("inf"), 1.0], "state must be finite, got inf"),
        ([0.0, None, 1.0], "state must be numbers"),
    ],
)
def test_bad_states_are_refused(frame, state, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor(state_dim=3)(frame, "go", state=state)


def test_one_state_does_not_serve_two_images(frame):
    with pytest.raises(ValueError, match=r"must have shape \(2, 3\), a row per image, got \(3,\)"):
        tiny_processor(state_dim=3)([frame, frame], ["go", "go"], state=[0.0, 0.0, 3.0])


def test_a_model_without_state_refuses_one(processor, frame):
    with pytest.raises(ValueError, match="takes no state"):
        processor(frame, "go", state=[0.0, 0.0, 3.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "go"}, "needs an image"),
        ({}, "needs an image"),
        ({"images": FRAME, "text": ""}, "non-empty string"),
        ({"images": FRAME, "text": " \n"}, "non-empty string"),
        ({"images": FRAME, "text": ["go", 3]}, "list of strings"),
        ({"images": FRAME, "text": []}, "list of strings"),
        ({"images": FRAME, "text": ["go", "stop"]}, "got 1 images and 2 texts"),
        ({"images": FRAME, "text": ["go", "<|im_start|>user\n"]}, "mixes formatted prompts"),
        ({"images": FRAME, "text": "go <IMG_CONTEXT>"}, r"control tokens: \['<IMG_CONTEXT>'\]"),
        ({"images": FRAME, "text": "go <|im_end|>"}, r"control tokens: \['<\|im_end\|>'\]"),
        ({"images": FRAME, "text": "go <new_token_99>"}, r"control tokens: \['<new_token_99>'\]"),
        ({"images": FRAME, "text": "go", "response": "anser"}, "unknown response 'anser'.*nearest is 'answer'"),
        ({"images": FRAME, "text": "go", "response": ["motion", None]}, "got 2 and 1 texts"),
        ({"images": FRAME, "text": "go", "response": {"motion"}}, "unknown response"),
        ({"images": FRAME, "text": "go", "unnorm_key": "brigde"}, "unknown unnorm_key 'brigde'.*nearest is 'bridge'"),
        ({"images": FRAME, "text": "go", "videos": []}, "videos and audio are not supported"),
        ({"images": FRAME, "text": "go", "pading": True}, "unknown argument 'pading'.*nearest is 'padding'"),
        ({"text": "<|im_start|>user\n", "state": [1.0]}, r"takes no \['state'\]"),
        (
            {"images": np.full((4, 4, 3), 2.0), "text": "go"},
            r"images\[0\]\['primary'\] holds float64 values from 2 to 2",
        ),
    ],
)
def test_bad_input_is_refused_with_what_was_given(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_a_prompt_longer_than_the_context_is_refused(processor, frame):
    with pytest.raises(ValueError, match="the prompt has 51.. tokens, the context holds 4096"):
        processor(frame, "go " * 1680)


def test_image_tokens_lost_to_truncation_are_noticed(processor, frame):
    with pytest.raises(ValueError, match="the prompts hold"):
        processor(frame, "go", truncation=True, max_length=40)


# Actions


def test_decoded_tensors_are_float32_and_arrays_float64(processor):
    normalized = torch.tensor([[0.5, 0.5, 0.5, 0.0, 0.0, 2.0, 0.7]], dtype=torch.bfloat16)
    actions = processor.decode_actions(normalized[None])
    assert actions.dtype == torch.float32
    assert actions.shape == (1, 1, 7)
    array = processor.decode_actions(normalized.double().numpy())
    assert array.dtype == np.float64
    # Both are float64 arithmetic; the values need no more than float32's digits.
    np.testing.assert_allclose(array, [[0.5, 1.0, 3.0, 0.0, 0.0, 1.0, 1.0]], rtol=1e-7)
    np.testing.assert_allclose(actions[0].numpy(), array, rtol=1e-7)


def test_released_actions_come_out_of_decode_actions():
    tensors, _ = load_fixture("postprocess_unnorm")
    action = {name: tensors[f"unnorm.in.{name}"] for name in ("q01", "q99", "mask")}
    processor = tiny_processor(statistics={"bridge": {"action": action}})
    np.testing.assert_allclose(
        processor.decode_actions(tensors["unnorm.in.sampled"].numpy()), tensors["unnorm.out.actions"], rtol=1e-12
    )


def test_the_dataset_must_be_named_if_there_are_several():
    processor = tiny_processor(statistics=TWO_DATASETS)
    assert processor.resolve_unnorm_key("fractal") == "fractal"
    with pytest.raises(ValueError, match=r"unnorm_key is needed.*\['bridge', 'fractal'\]"):
        processor.decode_actions(torch.zeros(1, 7))


def test_without_statistics_the_processor_chats_but_does_not_act(frame):
    processor = tiny_processor(statistics=None, state_dim=3)
    assert processor.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=True).shape[0] == 1
    for act in (
        lambda: processor.decode_actions(torch.zeros(1, 7)),
        lambda: processor.action_inputs(frame, [0.0, 0.0, 3.0]),
        lambda: processor.resolve_unnorm_key("bridge"),
    ):
        with pytest.raises(ValueError, match=r"it can chat, but not act. Set processor.statistics = "):
            act()


def test_statistics_set_later_are_used_and_checked():
    processor = tiny_processor(statistics=None)
    processor.statistics = STATISTICS
    assert processor.decode_actions(np.zeros((1, 7)))[0, 2] == 2.0
    processor.statistics = {"bridge": {"action": {"q01": [0.0], "q99": [1.0]}}}
    with pytest.raises(ValueError, match="must have 7 values"):
        processor.decode_actions(np.zeros((1, 7)))


# Construction


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_image_tokens": 0}, "num_image_tokens must be a positive integer, got 0"),
        ({"image_size": "448"}, "image_size must be a positive integer, got '448'"),
        ({"state_dim": -1}, "state_dim must be a positive integer, got -1"),
        ({"action_crop_pct": 87.5}, "action_crop_pct must be above 0 and at most 1, got 87.5"),
        ({"cameras": []}, "at least one"),
        ({"cameras": "primary"}, "must be a list"),
        ({"cameras": ["primary wrist"]}, "none with spaces"),
        ({"cameras": ["left", "left"]}, "distinct names"),
        ({"action_names": ["x"]}, "action_names must name 7 action dimensions"),
        ({"action_dim": 8, "statistics": None}, "action_names must name 8 action dimensions"),
        ({"gripper_dims": [7]}, r"gripper_dims must lie in 0..6, got \[7\]"),
        ({"control_rate_hz": {"bridge": 0}}, "must be a positive number of Hz"),
        ({"control_rate_hz": {"droid": 15}}, r"the statistics have \['bridge'\]"),
        ({"statistics": {"bridge": {}}}, r"statistics\['bridge'\]\['action'\] is missing"),
        ({"state_dim": 4}, r"\['q01'\] must have 4 values, one per dimension, got 3 values"),
    ],
)
def test_bad_fields_are_refused_at_construction(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor(**fields)


def test_gripper_dimensions_of_another_robot_must_be_given():
    names = {"action_dim": 2, "action_names": ["left", "right"], "action_units": ["m/s", "m/s"], "statistics": None}
    with pytest.raises(ValueError, match="gripper_dims is needed for action_dim 2"):
        tiny_processor(**names)
    assert tiny_processor(**names, gripper_dims=[]).gripper_dims == []


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="action_size"):
        tiny_processor(action_size=7)


def test_missing_tokens_are_listed():
    special = [token for token in SPECIAL_TOKENS if token != "<img>"]
    with pytest.raises(
        ValueError, match=r"lacks 3 special token\(s\): \['<img>', '<new_token_14>', '<new_token_15>'\]"
    ):
        tiny_processor(tokenizer=byte_tokenizer(special, num_queries=14))


def test_scattered_query_tokens_are_refused():
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, num_queries=8)
    tokenizer.add_tokens(["<other>", *(f"<new_token_{index}>" for index in range(8, 16))], special_tokens=True)
    with pytest.raises(ValueError, match="<new_token_0> … <new_token_15> must have consecutive token ids"):
        tiny_processor(tokenizer=tokenizer)


def test_token_ids_are_those_of_the_vocabulary(processor):
    assert processor.query_token_ids == list(range(263, 279))
    assert processor.image_token_id == 5
    assert processor.decode(processor.space_token_ids) == " "


# Saving and loading

FIELDS = {
    "cameras": ["front", "wrist"],
    "action_crop_pct": 0.875,
    "state_dim": 3,
    "statistics": TWO_DATASETS,
    "control_rate_hz": {"bridge": 5.0},
}

LOAD_WITHOUT_PACKAGE = """
import sys, json, torch
from PIL import Image
from transformers import AutoProcessor

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "instructvla":
            raise ImportError(name)

sys.meta_path.insert(0, Block())
folder, again, out = sys.argv[1:]
for target in (again, None):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    if target:
        processor.save_pretrained(target)
        folder = target
image = Image.linear_gradient("L").resize((40, 30))
inputs = processor({"front": image, "wrist": image}, "go", state=[0.1, 0.2, 3.0], unnorm_key="bridge")
actions = processor.decode_actions(torch.linspace(-1, 1, 14).reshape(1, 2, 7), "fractal")
assert not any(name.split(".")[0] == "instructvla" for name in sys.modules)
torch.save({**inputs, "actions": actions}, out)
"""


def test_saving_and_loading_keeps_every_field(tmp_path, frame):
    saved = tiny_processor(**FIELDS)
    saved.save_pretrained(tmp_path)
    loaded = InstructVLAProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == tiny_processor(**FIELDS).to_dict()
    assert loaded.chat_template == saved.chat_template
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert {name: config[name] for name in FIELDS} == FIELDS
    assert config["action_units"] == ["m", "m", "m", "rad", "rad", "rad", "0 closed, 1 open"]
    assert config["gripper_convention"] == "1 = open, 0 = closed"
    images, state = {"front": frame, "wrist": frame}, [0.1, 0.2, 3.0]
    before, after = (p(images, "go", state=state, unnorm_key="bridge") for p in (saved, loaded))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_field_can_be_overridden_on_loading(tmp_path):
    tiny_processor().save_pretrained(tmp_path)
    assert InstructVLAProcessor.from_pretrained(tmp_path, action_crop_pct=0.5).action_crop_pct == 0.5


def test_saving_without_statistics_writes_nothing(tmp_path):
    for statistics in (None, {}):
        with pytest.raises(ValueError, match="not saved without statistics"):
            tiny_processor(statistics=statistics).save_pretrained(tmp_path / "folder")
    processor = tiny_processor()
    processor.statistics = copy.deepcopy(STATISTICS)
    del processor.statistics["bridge"]["action"]["q99"]
    with pytest.raises(ValueError, match=r"lacks \['q99'\]"):
        processor.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_saved_folder_loads_where_the_package_is_not_installed(tmp_path):
    processor = tiny_processor(**FIELDS)
    processor.save_pretrained(tmp_path / "folder")
    script = tmp_path / "load.py"
    script.write_text(LOAD_WITHOUT_PACKAGE)
    arguments = [str(tmp_path / name) for name in ("folder", "again", "out.pt")]
    caches = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment = os.environ | caches
    subprocess.run([sys.executable, str(script), *arguments], check=True, env=environment, cwd=tmp_path, timeout=120)
    image = Image.linear_gradient("L").resize((40, 30))
    expected = processor({"front": image, "wrist": image}, "go", state=[0.1, 0.2, 3.0], unnorm_key="bridge")
    expected["actions"] = processor.decode_actions(torch.linspace(-1, 1, 14).reshape(1, 2, 7), "fractal")
    loaded = torch.load(tmp_path / "out.pt")
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
