"""Claims about the RLDS reader."""

import io
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.rlds import RldsReader
from tests.rlds_writer import BRIDGE, bridge_record, example, features_dict, frame, tensor, write_rlds

SHARED = Path(__file__).parents[2] / "shared" / "data"
RECORDS = [bridge_record(number, steps=2 + number % 3) for number in range(5)]
FIRST, SECOND = (f"bridge_dataset-train.tfrecord-0000{index}-of-00002" for index in range(2))


@pytest.fixture
def folder(tmp_path):
    """Five episodes in two files, of three and two records."""
    return write_rlds(tmp_path / "bridge_dataset" / "1.0.0", RECORDS, shards=2)


def test_episodes_come_whole_and_in_the_order_of_files_and_records(folder):
    reader = RldsReader(folder)
    assert len(reader) == len(RECORDS)
    for episode, record in zip(reader, RECORDS, strict=True):
        assert set(episode.steps) == {name.removeprefix("steps/") for name in record if name.startswith("steps/")}
        for name, values in episode.steps.items():
            np.testing.assert_array_equal(values, record[f"steps/{name}"])
        assert episode.steps["is_first"].dtype == bool
        (file_path,), (number,) = record["episode_metadata/file_path"], record["episode_metadata/episode_id"]
        assert episode.metadata == {"episode_metadata/file_path": file_path, "episode_metadata/episode_id": number}
    assert [reader[index].source for index in (2, 3)] == [
        f"{folder / FIRST}, record 2",
        f"{folder / SECOND}, record 0",
    ]


def test_an_episode_is_read_alone_and_from_another_process(folder):
    reader = pickle.loads(pickle.dumps(RldsReader(folder)))
    np.testing.assert_array_equal(reader[4].steps["action"], RECORDS[4]["steps/action"])


@pytest.mark.parametrize("index", [-1, 5])
def test_an_episode_beyond_the_last_is_an_index_error(folder, index):
    with pytest.raises(IndexError, match=f"has 5 episodes, there is no {index}"):
        RldsReader(folder)[index]


def test_the_folder_above_a_single_version_will_do(folder):
    assert RldsReader(folder.parent).folder == RldsReader(folder.parent.parent).folder == folder
    write_rlds(folder.parent / "2.0.0", RECORDS)
    with pytest.raises(ValueError, match=r"several datasets or versions, give one: .*1\.0\.0, .*2\.0\.0"):
        RldsReader(folder.parent)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} is no TFDS dataset"):
        RldsReader(tmp_path)


def test_splits_are_kept_apart(folder):
    write_rlds(folder, RECORDS[:1], split="val")
    assert len(RldsReader(folder)) == 5
    assert len(RldsReader(folder, "val")) == 1
    with pytest.raises(ValueError, match="no split 'test' .*its splits are train, val"):
        RldsReader(folder, "test")


def test_files_of_another_format_are_refused(folder):
    for path in folder.glob("*.tfrecord-*"):
        path.unlink()
    info = json.loads((folder / "dataset_info.json").read_text()) | {"fileFormat": "array_record"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="they are array_record: download or write them as tfrecord"):
        RldsReader(folder)


def test_a_missing_shard_is_named(folder):
    (folder / SECOND).unlink()
    with pytest.raises(ValueError, match=f"lacks {SECOND} of split 'train'"):
        RldsReader(folder)


def test_two_builds_in_one_folder_are_refused(folder):
    write_rlds(folder, RECORDS, shards=1)
    with pytest.raises(ValueError, match="more than once: keep one of .*-of-00001, .*-of-00002"):
        RldsReader(folder)


def test_dataset_info_of_another_build_is_refused(folder):
    info = {"splits": [{"name": "train", "shardLengths": ["5"]}]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="tells 1 shards of split 'train', there are 2"):
        RldsReader(folder)


@pytest.mark.parametrize("content", [None, '{"splits": []}'])
def test_a_dataset_without_told_lengths_can_be_read(folder, content):
    (folder / "dataset_info.json").unlink()
    if content:
        (folder / "dataset_info.json").write_text(content)
    assert len(RldsReader(folder)) == 5


def test_features_without_steps_are_refused(tmp_path):
    write_rlds(tmp_path, [{"a": [1]}], features_dict(a=tensor("int32")))
    with pytest.raises(ValueError, match="sequence `steps`, this has a"):
        RldsReader(tmp_path)


def test_a_truncated_file_leaves_all_other_episodes_and_their_numbers(folder):
    """Truncated within its second record, so that its third is gone too."""
    os.truncate(folder / FIRST, len(frame(example(RECORDS[0]))) + 100)
    reader = RldsReader(folder)
    assert len(reader) == 5
    for index in (0, 3, 4):
        np.testing.assert_array_equal(reader[index].steps["action"], RECORDS[index]["steps/action"])
    for index in (1, 2):
        with pytest.raises(BadEpisodeError) as bad:
            reader[index]
        place = rf"{FIRST}, record {index}: the file breaks off at record 1, byte \d+: it is truncated.*; download this"
        assert re.search(place, str(bad.value)) and bad.value.file == str(folder / FIRST)


def test_a_file_that_holds_fewer_records_than_told_says_so(folder):
    """Cut exactly between two records."""
    os.truncate(folder / FIRST, len(frame(example(RECORDS[0]))))
    with pytest.raises(BadEpisodeError, match="record 2: the file breaks off at record 1, .* though more .* told of"):
        RldsReader(folder)[2]


def test_a_corrupted_record_leaves_all_other_episodes(folder):
    data = bytearray((folder / SECOND).read_bytes())
    data[500] ^= 1
    (folder / SECOND).write_bytes(data)
    reader = RldsReader(folder)
    with pytest.raises(BadEpisodeError, match=f"{SECOND}, record 0 at byte 0: the checksum of its .* bytes is wrong"):
        reader[3]
    assert len(reader[4].steps["action"]) == 3


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"steps/is_last": [0]}, "one number of steps.*'is_last': 1"),
        ({name: [] for name in RECORDS[0] if name.startswith("steps/")}, "at least 1"),
        ({"steps/action": [0.5] * 8}, "'steps/action' is not as features.json tells"),
        ({"episode_metadata/episode_id": [1, 2]}, "'episode_metadata/episode_id' .* 2 values"),
    ],
)
def test_a_record_unlike_features_json_is_named(tmp_path, change, problem):
    write_rlds(tmp_path, [RECORDS[0] | change])
    with pytest.raises(BadEpisodeError, match=f"-of-00001, record 0 at byte 0: .*{problem}"):
        RldsReader(tmp_path)[0]


def test_a_record_that_lacks_a_field_is_named(tmp_path):
    write_rlds(tmp_path, [{name: values for name, values in RECORDS[0].items() if name != "steps/action"}])
    with pytest.raises(BadEpisodeError, match="record 0 at byte 0: it lacks 'steps/action'"):
        RldsReader(tmp_path)[0]


def test_a_record_of_another_kind_is_named(tmp_path):
    write_rlds(tmp_path, [RECORDS[0]], BRIDGE)
    (path,) = tmp_path.glob("*.tfrecord-*")
    path.write_bytes(frame(b"\x0a\xff no example"))
    with pytest.raises(BadEpisodeError, match="record 0 at byte 0: it is not a tf.train.Example"):
        RldsReader(tmp_path)[0]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the real Bridge episodes in {SHARED}")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_bridge_episodes_are_read(split):
    reader = RldsReader(SHARED / "bridge_rlds_debug", split)
    assert len(reader) == 25
    for episode in reader:
        shapes = {name: np.shape(episode.steps[name]) for name in ("action", "observation/state", "reward", "is_last")}
        assert shapes == {"action": (10, 7), "observation/state": (10, 7), "reward": (10,), "is_last": (10,)}
        for camera in range(4):
            pictures = [Image.open(io.BytesIO(data)) for data in episode.steps[f"observation/image_{camera}"]]
            assert {(picture.format, picture.size) for picture in pictures} == {("JPEG", (64, 64))} and len(
                pictures
            ) == 10
        assert episode.metadata["episode_metadata/file_path"].endswith("out.npy")
        assert episode.metadata["episode_metadata/has_image_0"] is False  # a known fault of this copy
