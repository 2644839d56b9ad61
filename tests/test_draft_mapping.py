"""Claims about `instructvla draft-mapping`: what it writes loads, fits its data, and marks what a person must check."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from instructvla.training.data.draft_mapping import app, camera_fields, draft_mapping
from instructvla.training.data.episodes import RecordedField
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.prepare import app as prepare_app
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import open_episodes
from tests.lerobot_writer import FRONT, WRIST, LerobotDataset
from tests.memory_episodes import SHARED, bridge_episodes
from tests.rlds_writer import bridge_record, features_dict, image, jpeg, sequence, tensor, text, write_rlds


def drafted(source, tmp_path):
    """The mapping that the command writes, and its text."""
    path = tmp_path / "draft.yaml"
    result = CliRunner().invoke(app, [str(source), "--output", str(path)])
    assert result.exit_code == 0, result.output
    content = path.read_text(encoding="utf-8")
    assert f"{content.count('CHECK:')} places to check" in result.stdout
    return read_mapping(path), content


def lerobot(tmp_path, **features):
    """A LeRobot dataset of two actions; `features` replace what info.json says of them."""
    folder = LerobotDataset("v2.1", lengths=(4, 4), tasks=("push", "push")).write(tmp_path / "my robot")
    info = json.loads((folder / "meta/info.json").read_text())
    for name, content in features.items():
        info["features"][name.replace("__", ".")].update(content)
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


def test_lerobot_metadata_tell_names_cameras_instruction_and_rate(tmp_path):
    names = {"names": {"motors": ["shoulder", "elbow"]}}
    folder = lerobot(tmp_path, action=names, observation__state={"names": [["a", "b", "c"]]})
    mapping, content = drafted(folder, tmp_path)
    assert mapping.dataset == "my_robot" and mapping.cameras == {"primary": FRONT, "wrist": WRIST}
    assert (mapping.action.names, mapping.state.names) == (("shoulder", "elbow"), ("a", "b", "c"))
    assert set(mapping.action.units) == {"unknown"} and "# CHECK: m, rad" in content
    assert (mapping.instruction, mapping.episode_id, mapping.control_rate_hz) == ("task", "episode_index", None)
    assert "# control_rate_hz: the format tells it, 10" in content and mapping.description.gripper_dims == ()
    assert open_episodes(folder, mapping)[1].actions.shape == (4, 2)


@pytest.mark.parametrize("names", [None, ["one"], {"action": None}])
def test_dimensions_without_fitting_names_are_numbered(tmp_path, names):
    mapping, _ = drafted(lerobot(tmp_path, action={"names": names}), tmp_path)
    assert mapping.action.names == ("action_0", "action_1")


@pytest.mark.parametrize(
    ("values", "convention", "note"),
    [
        ([0, 1, 1, 0], "open_is_one", "CHECK: its name says gripper; is the larger value open?"),
        ([-1, 1, 1, 0], "open_is_one_signed", "CHECK: its name says gripper; is the larger value open?"),
        ([0, 80, 40, 0], None, "its values span 0 to 80; give `scale` and `gripper`"),
    ],
)
def test_a_gripper_is_assumed_where_a_name_says_so_and_values_allow_it(tmp_path, values, convention, note):
    folder = lerobot(tmp_path, action={"names": ["main_gripper.pos", "wrist"]})
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        actions = pa.array([[value, 0.5] for value in values], pa.list_(pa.float32()))
        pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", actions), path)
    mapping, content = drafted(folder, tmp_path)
    assert [part.gripper for part in mapping.action.parts] == [convention, None] and note in content
    assert [part.dims for part in mapping.action.parts] == [(0,), (1,)]
    assert mapping.action.names == ("main_gripper.pos", "wrist")
    expected = values if convention is None else np.clip(values, 0, 1)
    assert open_episodes(folder, mapping)[0].actions[:, 0].tolist() == list(expected)


def test_a_gripper_of_a_dataset_that_can_not_be_read_is_left_to_the_person(tmp_path):
    folder = lerobot(tmp_path, action={"names": ["gripper", "wrist"]})
    for path in folder.rglob("*.parquet"):
        path.unlink()
    mapping, content = drafted(folder, tmp_path)
    assert mapping.description.gripper_dims == () and "no episode could be read" in content


def test_depth_maps_are_left_out(tmp_path):
    folder = lerobot(tmp_path, **{WRIST.replace(".", "__"): {"info": {"video.is_depth_map": True}}})
    mapping, content = drafted(folder, tmp_path)
    assert mapping.cameras == {"primary": FRONT} and f"# left out, a depth map: {WRIST}" in content


def test_rlds_features_tell_fields_sizes_and_descriptions(tmp_path):
    folder = write_rlds(tmp_path / "bridge_dataset" / "1.0.0", [bridge_record(number) for number in range(2)])
    features = json.loads((folder / "features.json").read_text())
    steps = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    steps["action"]["description"] = "Seven numbers,\n the last one for the gripper."
    (folder / "features.json").write_text(json.dumps(features))
    mapping, content = drafted(tmp_path, tmp_path)
    assert (mapping.dataset, mapping.cameras) == ("bridge_dataset", {"primary": "observation/image_0"})
    assert mapping.action.names == tuple(f"action_{dim}" for dim in range(7)) and len(mapping.state.names) == 7
    assert mapping.description.gripper_dims == ()  # a description is no name
    assert (mapping.instruction, mapping.control_rate_hz) == ("language_instruction", 10)
    assert (mapping.episode_id, mapping.file_path) == ("episode_metadata/episode_id", "episode_metadata/file_path")
    assert '# The format describes action as "Seven numbers, the last one for the gripper."' in content
    assert "10 is a placeholder" in content and "# The shipped mapping `bridge` finds all its fields" in content
    assert len(open_episodes(tmp_path, mapping)[0]) == 4


def nested(tmp_path, **observation):
    """An action spread over fields, as Fractal has it."""
    action = features_dict(
        gripper_closedness_action=tensor("float32", 1), terminate_episode=tensor("int32", 3), world=tensor("float32", 3)
    )
    cameras = {"wrist_image": image(), "hand_left": image(), "depth_image": image(), "zoom": image()}
    fields = features_dict(observation=features_dict(**cameras, **observation), action=action, command=text())
    numbers = {"observation/wrist_state": np.zeros((4, 2), np.float32)} if observation else {}
    numbers |= {
        "action/gripper_closedness_action": np.float32([0, 1, -1, 0]),
        "action/terminate_episode": np.zeros((4, 3), int),
        "action/world": np.zeros((4, 3), np.float32),
        "command": ["go"] * 4,
    }
    pictures = {f"observation/{camera}": [jpeg(np.random.default_rng(0))] * 4 for camera in cameras}
    record = {f"steps/{name}": values for name, values in (numbers | pictures).items()}
    return write_rlds(tmp_path / "nested", [record], features_dict(steps=sequence(fields)))


def test_an_action_of_several_fields_is_put_together(tmp_path):
    folder = nested(tmp_path, wrist_state=tensor("float32", 2))
    mapping, content = drafted(folder, tmp_path)
    assert mapping.action.names == ("gripper_closedness_action", "world_0", "world_1", "world_2")
    assert mapping.description.gripper_dims == (0,) and mapping.state is None
    assert "no field looks like the state" in content and "observation/wrist_state [2]" in content
    assert "no field looks like an instruction" in content and mapping.instruction is None
    assert open_episodes(folder, mapping)[0].actions.shape == (4, 4)


def test_the_primary_camera_is_not_on_a_wrist(tmp_path):
    mapping, _ = drafted(nested(tmp_path), tmp_path)
    names = {"primary": "zoom", "wrist": "hand_left", "wrist_image": "wrist_image"}
    assert mapping.cameras == {camera: f"observation/{name}" for camera, name in names.items()}


def test_a_camera_whose_field_has_a_space_gets_a_name_without(tmp_path):
    fields = [RecordedField(name, "picture", ()) for name in ("observation/front", "observation/left side")]
    assert camera_fields(fields) == {"primary": "observation/front", "left_side": "observation/left side"}


def test_a_source_that_has_no_mapping_to_draft_is_refused(tmp_path):
    prepare(bridge_episodes(1), tmp_path / "prepared")
    with pytest.raises(ValueError, match="is prepared: it has its mapping already"):
        draft_mapping(tmp_path / "prepared")
    features = features_dict(steps=sequence(features_dict(action=tensor("float32", 2))))
    blind = write_rlds(tmp_path / "blind", [{"steps/action": np.zeros((2, 2), np.float32)}], features)
    with pytest.raises(ValueError, match="no field that looks like pictures.*It has action"):
        draft_mapping(blind)


def test_a_file_that_exists_is_left_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text("precious")
    result = CliRunner().invoke(app, [str(tmp_path), "--output", str(tmp_path / "mine.yaml")])
    assert result.exit_code == 2 and "mine.yaml exists; give another --output" in result.stderr
    assert (tmp_path / "mine.yaml").read_text() == "precious"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"real material is not at {SHARED}")
@pytest.mark.parametrize(("name", "dims"), [("lerobot_v21_g1", 26), ("bridge_rlds_debug", 7)])
def test_the_draft_of_a_real_dataset_prepares_its_first_episode_as_it_is(tmp_path, name, dims):
    mapping, _ = drafted(SHARED / name, tmp_path)
    assert len(mapping.action.names) == len(mapping.state.names) == dims and mapping.description.gripper_dims == ()
    arguments = [str(SHARED / name), "--mapping", str(tmp_path / "draft.yaml"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(prepare_app, [*arguments, "--max-episodes", "1", "--skip-bad"])
    assert result.exit_code == 0, result.output
    (episode,) = open_episodes(tmp_path / "out")
    assert episode.actions.shape[1] == dims and episode.instructions[0]
