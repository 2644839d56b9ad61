"""Claims about opening a dataset of any format."""

import numpy as np
import pytest

from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import detect_format, open_episodes
from tests.lerobot_writer import FRONT, WRIST, LerobotDataset
from tests.memory_episodes import SHARED, bridge_episodes
from tests.rlds_writer import bridge_record, write_rlds

BRIDGE = SHARED / "bridge_rlds_debug" / "bridge_dataset"
G1 = SHARED / "lerobot_v21_g1"


def folder_with(path, name):
    (path / name).parent.mkdir(parents=True)
    (path / name).write_text("{}")
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("features.json", "RLDS"),
        ("1.0.0/features.json", "RLDS"),
        ("bridge/1.0.0/features.json", "RLDS"),
        ("meta/info.json", "LeRobot"),
        ("manifest.json", "prepared"),
    ],
)
def test_a_format_is_known_by_its_files(tmp_path, name, kind):
    assert detect_format(folder_with(tmp_path / "dataset", name)) == kind


def test_a_folder_of_no_format_is_refused_with_those_that_exist(tmp_path):
    with pytest.raises(ValueError, match=r"holds no dataset of a known format: RLDS \(features.json\), LeRobot"):
        open_episodes(tmp_path)


@pytest.fixture
def rlds(tmp_path):
    return write_rlds(tmp_path / "all" / "bridge_dataset" / "1.0.0", [bridge_record(number) for number in range(2)])


def test_every_folder_above_a_single_dataset_will_do_and_is_the_same_source(rlds):
    readers = [open_episodes(folder, "bridge") for folder in (rlds, rlds.parent, rlds.parent.parent)]
    assert [len(reader) for reader in readers] == [2, 2, 2]
    assert len({reader.fingerprint for reader in readers}) == 1
    write_rlds(rlds.parent / "2.0.0", [bridge_record(0)])
    with pytest.raises(ValueError, match=r"several datasets or versions, give one: .*1\.0\.0, .*2\.0\.0"):
        open_episodes(rlds.parent.parent, "bridge")


def with_cameras(name, cameras):
    return dict(read_mapping(name).given) | {"cameras": cameras}


def test_a_camera_that_rlds_lacks_is_refused_at_opening_with_key_fields_and_remedy(rlds):
    with pytest.raises(ValueError) as refusal:
        open_episodes(rlds, with_cameras("bridge", {"wrist": "observation/wrist"}))
    assert str(refusal.value) == (
        f"{rlds} has no field observation/wrist; its fields are action, is_first, is_last, language_instruction, "
        "observation/image_0, observation/state. The mapping asks for it, `cameras.wrist: observation/wrist`: correct "
        "it there, or give the data that the mapping is for."
    )


LEROBOT = {
    "dataset": "made",
    "cameras": {"primary": FRONT},
    "action": {"parts": [{"field": "action"}], "names": ["a", "b"], "units": ["rad", "rad"]},
    "instruction": "task",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cameras": {"primary": FRONT, "top": "observation.images.top"}},
            "`cameras.top: observation.images.top`: cor",
        ),
        ({"episode_id": "uuid"}, "no field uuid; its fields of the whole episode are episode_index, length, tasks"),
        ({"cameras": {"primary": "action"}}, f"no camera action; it has {FRONT}, {WRIST}"),
    ],
)
def test_a_field_that_lerobot_lacks_is_refused_at_opening(tmp_path, changes, message):
    folder = LerobotDataset("v2.1", lengths=(1,), tasks=("a",)).write(tmp_path)
    with pytest.raises(ValueError, match=f"^{folder} has .*{message}"):
        open_episodes(folder, LEROBOT | changes)


def test_of_lerobot_the_cameras_of_the_mapping_are_read_alone(tmp_path):
    reader = open_episodes(LerobotDataset("v2.1", lengths=(2,), tasks=("a",)).write(tmp_path), LEROBOT)
    assert reader.raw.cameras == (FRONT,) and list(reader[0].images) == ["primary"]
    assert reader[0].instructions == ["a", "a"]


def test_a_file_is_refused_with_what_to_give(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; give the folder"):
        open_episodes(tmp_path / "file")


@pytest.mark.parametrize("name", ["features.json", "meta/info.json"])
def test_a_recording_without_a_mapping_is_refused_with_the_shipped_ones(tmp_path, name):
    with pytest.raises(ValueError, match="give a mapping, bridge, fractal, libero or your own YAML file"):
        open_episodes(folder_with(tmp_path / "dataset", name))


def test_a_prepared_dataset_has_its_mapping(tmp_path):
    prepare(bridge_episodes(2), tmp_path / "prepared")
    assert len(open_episodes(tmp_path / "prepared")) == 2
    for given in ({"mapping": "bridge"}, {"dataset": "other"}):
        with pytest.raises(ValueError, match="is prepared: its mapping and dataset name are fixed"):
            open_episodes(tmp_path / "prepared", **given)


def test_an_unfinished_preparation_says_what_to_do(tmp_path):
    folder_with(tmp_path / "prepared", ".prepare/train.jsonl")
    with pytest.raises(ValueError, match="finish `instructvla prepare`"):
        open_episodes(tmp_path / "prepared")


def test_lerobot_has_no_other_split(tmp_path):
    with pytest.raises(ValueError, match="LeRobot dataset, all of which is split 'train'; 'val' is none"):
        open_episodes(folder_with(tmp_path / "dataset", "meta/info.json"), "bridge", split="val")


@pytest.mark.skipif(not BRIDGE.is_dir(), reason=f"real Bridge episodes are not at {BRIDGE}")
def test_real_bridge_episodes_open_with_the_shipped_mapping():
    reader = open_episodes(BRIDGE, "bridge")
    assert len(reader) == 25
    for episode in reader:
        assert (episode.actions.shape, episode.states.shape) == ((8, 7), (8, 8))
        assert set(np.unique(episode.actions[:, 6])) <= {0, 1}
        assert np.abs(episode.actions[:, :3]).max() < 0.2  # metres in a fifth of a second
        assert episode.file_path.endswith("/out.npy") and all(episode.instructions)
    assert reader.fingerprint == open_episodes(BRIDGE, "bridge").fingerprint
    assert reader.fingerprint != open_episodes(BRIDGE, "bridge", split="val").fingerprint


@pytest.mark.skipif(not G1.is_dir(), reason=f"the real LeRobot dataset is not at {G1}")
def test_a_real_lerobot_dataset_opens_with_a_mapping_of_ones_own():
    joints = {"names": [str(n) for n in range(26)], "units": ["rad"] * 26}
    mapping = {
        "dataset": "g1",
        "cameras": {"primary": "observation.images.cam_high"},
        "state": {"parts": [{"field": "observation.state"}], **joints},
        "action": {"parts": [{"field": "action"}], **joints},
        "instruction": "task",
        "episode_id": "episode_index",
    }
    reader = open_episodes(G1, mapping)
    assert reader.description.gripper_dims == ()
    assert reader.raw.cameras == ("observation.images.cam_high",)
