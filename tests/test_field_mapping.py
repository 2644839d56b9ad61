"""Claims about mappings: recorded fields become an episode in physical units, and a wrong mapping is named."""

import copy
import pickle

import numpy as np
import pytest
import yaml

from instructvla.training.data.episodes import BadEpisodeError, RawEpisode
from instructvla.training.data.field_mapping import (
    MAPPINGS,
    MappedEpisodes,
    MappingError,
    read_mapping,
    shipped_mappings,
)
from tests.memory_episodes import BridgeRecordings, bridge_recording, jpeg

BRIDGE = yaml.safe_load((MAPPINGS / "bridge.yaml").read_text())


def changed(**changes) -> dict:
    """Bridge's mapping with other values; "a__b" is key b inside a."""
    mapping = copy.deepcopy(BRIDGE)
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = mapping
        for section in sections:
            place = place[section]
        place[key] = value
    return mapping


def test_bridge_actions_are_what_the_arm_did_between_steps_without_the_first_and_the_last():
    raw = bridge_recording(1, steps=6)
    episode = read_mapping("bridge").episode(raw, 0)
    state = raw.steps["observation/state"]
    assert len(episode) == 4
    np.testing.assert_array_equal(episode.actions[:, :6], (state[1:] - state[:-1])[1:, :6])
    np.testing.assert_array_equal(episode.actions[:, 6], raw.steps["action"][1:-1, 6])
    np.testing.assert_array_equal(episode.states, np.insert(state[1:-1], 6, 0, axis=1))
    assert episode.images["primary"] == raw.steps["observation/image_0"][1:-1]
    assert (episode.dataset, episode.episode_id, episode.file_path) == ("bridge_dataset", "3", "/robot/1/out.npy")
    assert (episode.instructions, episode.control_rate_hz) == (["put object 1 on the plate"] * 4, 5)


def test_fractal_actions_are_gathered_from_nested_fields_and_the_gripper_becomes_absolute():
    raw = RawEpisode(
        {
            "observation/image": [jpeg(step) for step in range(3)],
            "observation/base_pose_tool_reached": np.arange(21, dtype=np.float32).reshape(3, 7),
            "observation/gripper_closed": np.array([[0], [0], [1]], np.float32),
            "observation/natural_language_instruction": np.array([b"pick coke can"] * 3),
            "action/world_vector": np.full((3, 3), 0.1, np.float32),
            "action/rotation_delta": np.full((3, 3), 0.2, np.float32),
            "action/gripper_closedness_action": np.array([[0], [1], [0]], np.float32),
        },
        source="fractal: record 0",
    )
    episode = read_mapping("fractal").episode(raw, 17)
    assert episode.actions.tolist() == np.float32([[0.1] * 3 + [0.2] * 3 + [open_] for open_ in (1, 0, 0)]).tolist()
    assert episode.states.shape == (3, 8) and episode.states[2, 7] == 1
    assert (episode.episode_id, episode.file_path, episode.control_rate_hz) == ("17", None, 3)
    assert episode.instructions == ["pick coke can"] * 3


def test_libero_gripper_is_turned_round_and_both_cameras_are_read():
    raw = RawEpisode(
        {
            "observation/image": [jpeg(0), jpeg(1)],
            "observation/wrist_image": [jpeg(2), jpeg(3)],
            "observation/state": np.ones((2, 8), np.float32),
            "action": np.float32([[0.5] * 6 + [-1], [0.5] * 6 + [1]]),
            "language_instruction": ["open the drawer", ""],
        },
        {"episode_metadata/file_path": b"libero_goal/demo.hdf5"},
        "libero: record 4",
    )
    episode = read_mapping("libero").episode(raw, 4)
    assert episode.actions[:, 6].tolist() == [1, 0]
    assert sorted(episode.images) == ["primary", "wrist"]
    assert episode.instructions == ["open the drawer", None]
    assert (episode.episode_id, episode.file_path) == ("4", "libero_goal/demo.hdf5")


@pytest.mark.parametrize("name", ["bridge", "fractal", "libero"])
def test_shipped_mappings_share_one_action_and_one_state_size(name):
    assert name in shipped_mappings()
    description = read_mapping(name).description
    assert (len(description.action_names), len(description.state_names)) == (7, 8)
    assert description.gripper_dims == (6,)


def test_scale_converts_units():
    parts = [{"field": "observation/state", "dims": [0, 1], "scale": [0.001, 2]}]
    mapping = read_mapping(changed(state={"parts": parts, "names": ["x", "roll"], "units": ["m", "rad"]}))
    raw = bridge_recording(0)
    expected = raw.steps["observation/state"][1:-1, :2] * np.float64([0.001, 2])
    np.testing.assert_array_equal(mapping.episode(raw, 0).states, expected.astype(np.float32))


def test_a_gripper_is_scaled_to_the_values_of_its_convention():
    parts = [{"field": "action", "dims": [6], "scale": 0.01, "gripper": "closed_is_one"}]
    mapping = read_mapping(changed(action={"parts": parts, "names": ["gripper"], "units": ["open fraction"]}))
    raw = bridge_recording(0, action=np.full((6, 7), 80, np.float32))
    np.testing.assert_allclose(mapping.episode(raw, 0).actions, 0.2, rtol=1e-6)


def test_an_instruction_of_the_whole_episode_is_repeated():
    mapping = read_mapping(changed(instruction="episode_metadata/file_path"))
    assert mapping.episode(bridge_recording(2), 0).instructions == ["/robot/2/out.npy"] * 4


def test_the_control_rate_of_the_format_is_taken_and_a_contradiction_refused():
    raw = RawEpisode(bridge_recording(0).steps, source="lerobot", control_rate_hz=30)
    assert read_mapping(changed(control_rate_hz=None)).episode(raw, 0).control_rate_hz == 30
    with pytest.raises(MappingError, match="lerobot was recorded at 30 Hz, .*control_rate_hz is 5"):
        read_mapping("bridge").episode(raw, 0)
    with pytest.raises(MappingError, match="does not tell its control rate; set control_rate_hz"):
        read_mapping(changed(control_rate_hz=None)).episode(bridge_recording(0), 0)


def test_the_description_tells_what_is_dropped_and_padded():
    description = read_mapping("bridge").description
    assert (description.first_step, description.dropped_steps, description.state_padding) == (1, 2, (6,))
    parts = [{"zeros": 2}, {"field": "observation/state"}, {"zeros": 1}]
    state = {"parts": parts, "names": [*"abcde"], "units": ["m"] * 5}
    assert read_mapping(changed(state=state)).description.state_padding == (0, 1, 4)


def test_another_dataset_name_changes_the_fingerprint():
    readers = [MappedEpisodes(BridgeRecordings(1), read_mapping("bridge").with_dataset(name)) for name in "ab"]
    assert [reader[0].dataset for reader in readers] == ["a", "b"]
    assert readers[0].fingerprint != readers[1].fingerprint


def test_a_reader_goes_to_worker_processes():
    reader = pickle.loads(pickle.dumps(MappedEpisodes(BridgeRecordings(2), read_mapping("bridge"))))
    assert len(reader) == 2 and len(reader[1]) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": {}}, "mapping: camera is not a field; .*Did you mean 'cameras'"),
        ({"cameras": {}}, "cameras is {}, but it must be given"),
        ({"cameras": {"left hand": "image"}}, "cameras is 'left hand', but it must be a name without spaces"),
        ({"action": None}, "action is None, but it must be given"),
        ({"action__names": ["x", "y"]}, r"action.units is .*must be 2 of them"),
        ({"state__parts": [{"zeros": 3}]}, r"state.names is .*must be 3, one per column"),
        ({"state__parts": [{"field": "a", "zeros": 1}]}, r"state.parts\[0\] is .*one of field and zeros"),
        ({"state__parts": [{"feild": "a"}]}, r"state.parts\[0\]: feild is not a field.*'field'"),
        ({"state__parts": [{"field": "a", "dims": "0:6"}]}, r"state.parts\[0\].dims is '0:6'.*list of columns"),
        ({"state__parts": [{"field": "a", "scale": "mm"}]}, r"state.parts\[0\].scale is 'mm'"),
        ({"state__parts": [{"field": "a", "change": "rate"}]}, "must be one of difference_to_next"),
        ({"action__parts": [{"field": "a", "dims": [6], "gripper": "inverted"}]}, "must be one of open_is_one"),
        ({"action__parts": [{"field": "a", "dims": [5, 6], "gripper": "open_is_one"}]}, "must be one column"),
        ({"drop_steps": {"first": 1}}, "last step has no difference_to_next"),
        ({"drop_steps": {"begin": 1, "last": 1}}, "drop_steps.begin is not a field"),
        ({"drop_steps": {"last": -1}}, "drop_steps.last is -1"),
        ({"control_rate_hz": 0}, "control_rate_hz is 0, but it must be a number above 0"),
        ({"optional": ["instruction"]}, "optional: instruction is not a field"),
        ({"motion": {"window": 0}}, "motion: window must be"),
    ],
)
def test_a_wrong_mapping_is_refused_by_key(changes, message):
    with pytest.raises(MappingError, match=message):
        read_mapping(changed(**changes))


@pytest.mark.parametrize("content", ["", "- a\n", "text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    (path := tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(MappingError, match="mine.yaml is .*must be KEY: VALUE pairs"):
        read_mapping(path)


def test_no_yaml_and_no_file_are_refused(tmp_path):
    (path := tmp_path / "mine.yaml").write_text("a: [")
    with pytest.raises(MappingError, match="mine.yaml is no YAML"):
        read_mapping(path)
    with pytest.raises(MappingError, match=r"'brigde' is neither shipped \(bridge, fractal, libero\)"):
        read_mapping("brigde")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation__image_0": None}, "memory: record 0 has no field observation/image_0; its fields are action, "),
        ({"observation__state": None}, "no field observation/state; its fields are action"),
        ({"observation__image_0": None}, "`cameras.primary: observation/image_0`: correct it there, or give the data"),
        ({"observation__state": None}, r"asks for it, `state.parts\[0\].field: observation/state`: correct it there"),
        ({"language_instruction": None}, "fields of the whole .*epi.*asks for it, `instruction: language_instruction`"),
        ({"observation__image_0": np.zeros((6, 8, 8, 3), np.uint8)}, "no encoded pictures; fields of bytes are absent"),
        ({"observation__image_0": np.zeros((6, 8, 8, 3), np.uint8)}, "`cameras.primary: observation/image_0` of the"),
        ({"action": ["a"] * 6}, "action is no array"),
    ],
)
def test_data_that_the_mapping_does_not_fit_are_refused_with_what_they_have(changes, message):
    with pytest.raises(MappingError, match=message):
        read_mapping("bridge").episode(bridge_recording(0, **changes), 0)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("observation/state", r"an array \(7,\) of float32"),
        ("observation/image_0", "a picture"),
        ("episode_metadata/episode_id", "the value 3"),
    ],
)
def test_an_instruction_that_is_no_text_is_refused_with_the_fields_that_are(field, told):
    with pytest.raises(
        MappingError, match=f"record 0: `instruction: {field}` of the mapping is a field .*{told}.*"
    ) as error:
        read_mapping(changed(instruction=field)).episode(bridge_recording(0), 0)
    assert "Fields of texts are episode_metadata/file_path, language_instruction; correct it" in str(error.value)


def test_an_id_that_is_neither_text_nor_number_is_refused():
    raw = bridge_recording(0)
    raw.metadata["episode_metadata/episode_id"] = [1, 2]
    with pytest.raises(
        MappingError, match="`episode_id: episode_metadata/episode_id` of the mapping is a text or a number"
    ):
        read_mapping("bridge").episode(raw, 0)


def test_a_required_field_of_the_whole_episode_is_named():
    with pytest.raises(
        MappingError, match="no field name; its fields of the whole episode are episode_metadata/ep.*`file_path: name`"
    ):
        read_mapping(changed(file_path="name", optional=[])).episode(bridge_recording(0), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.zeros((6, 5), np.float32)}, r"record 0: action has 5 columns, but the mapping takes \[6\]"),
        ({"action": np.full((6, 7), np.nan, np.float32)}, "record 0: actions of step 0 has nan in dimension 6"),
        ({"action": np.zeros((5, 7), np.float32)}, r"record 0: the fields of the action have \[6, 5\] steps"),
        ({"language_instruction": ["go"]}, "record 0: bridge_dataset/3: there are 4 actions.*instructions"),
        ({"observation__state": np.zeros((0, 7), np.float32)}, "observation/state has no steps"),
    ],
)
def test_an_episode_of_another_size_is_bad_and_named(changes, message):
    with pytest.raises(BadEpisodeError, match=message):
        read_mapping("bridge").episode(bridge_recording(0, **changes), 0)


def test_mixed_action_sizes_are_named_with_what_the_mapping_names():
    mapping = changed(action={"parts": [{"field": "action"}], "names": list("abcdefg"), "units": ["m"] * 7})
    assert read_mapping(mapping).episode(bridge_recording(0), 0).actions.shape == (4, 7)
    with pytest.raises(BadEpisodeError, match="its action has 8 dimensions, but the mapping names 7: a, b, c"):
        read_mapping(mapping).episode(bridge_recording(0, action=np.zeros((6, 8), np.float32)), 0)


def test_an_episode_too_short_for_the_dropped_steps_is_bad():
    with pytest.raises(BadEpisodeError, match=r"there are 0 actions.*2 recorded steps"):
        read_mapping("bridge").episode(bridge_recording(0, steps=2), 0)


def test_a_gripper_of_another_convention_is_bad_and_says_which_exist():
    parts = [{"field": "action", "dims": [6], "gripper": "open_is_one"}]
    mapping = read_mapping(changed(action={"parts": parts, "names": ["gripper"], "units": ["open fraction"]}))
    raw = bridge_recording(0, action=np.full((6, 7), -1, np.float32))
    with pytest.raises(BadEpisodeError, match="record 0: action as open_is_one: its values span -1 to -1"):
        mapping.episode(raw, 0)
