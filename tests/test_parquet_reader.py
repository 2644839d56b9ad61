"""Claims about reading prepared episodes, from a folder and from the Hub; what is damaged is named."""

import json
import multiprocessing
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import prepare
from tests.hub_server import HubServer, run_with_endpoint
from tests.memory_episodes import bridge_episodes

EPISODES = bridge_episodes(7)


@pytest.fixture
def folder(tmp_path):
    """Seven episodes in four files."""
    prepare(EPISODES, tmp_path / "bridge", shard_size=5000)
    return tmp_path / "bridge"


def test_episodes_come_in_the_order_they_were_prepared_in(folder):
    reader = ParquetEpisodes(folder)
    assert len(reader) == 7 and len(reader.files) > 2
    for number in (3, 0, 6, 2):
        assert reader[number].file_path == f"/robot/{number}/out.npy"
        np.testing.assert_array_equal(reader[number].actions, EPISODES[number].actions)
    assert reader[-1].file_path == reader[6].file_path
    assert reader.description == EPISODES.description


@pytest.mark.parametrize("index", [7, -8])
def test_there_is_no_episode_beyond_the_last(folder, index):
    with pytest.raises(IndexError, match=f"episode {index} of 7"):
        ParquetEpisodes(folder)[index]


def test_a_reader_with_open_files_goes_to_worker_processes(folder):
    reader = ParquetEpisodes(folder)
    first = reader[0]
    assert pickle.loads(pickle.dumps(reader))[0].images == first.images


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(folder, tmp_path):
    prepare(EPISODES, tmp_path / "again", shard_size=5000)
    prepare(bridge_episodes(6), tmp_path / "less", shard_size=5000)
    fingerprints = [ParquetEpisodes(path).fingerprint for path in (folder, tmp_path / "again", tmp_path / "less")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_no_more_than_a_few_files_are_open_at_once(folder, monkeypatch):
    monkeypatch.setattr("instructvla.training.data.parquet_reader.OPEN_FILES", 2)
    reader = ParquetEpisodes(folder)
    assert [reader[number].file_path for number in range(7)] == [f"/robot/{number}/out.npy" for number in range(7)]
    assert len(reader._opened) == 2


def test_a_truncated_file_is_named_and_the_others_can_be_read(folder):
    reader = ParquetEpisodes(folder)
    path = folder / reader.files[0]["path"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadEpisodeError, match=r"train-00000-of-0000\d.parquet has [\d,]+ of [\d,]+ bytes; copy the fi"):
        reader[0]
    assert reader[6].file_path == "/robot/6/out.npy"


def test_a_damaged_row_group_is_named(folder):
    reader = ParquetEpisodes(folder)
    path = folder / reader.files[0]["path"]
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(BadEpisodeError, match="00000-of-0000.*parquet: row group 0 can't be read .*prepare the"):
        reader[0]


def flip_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_one_flipped_byte_is_found_by_the_checksum_of_its_file(folder):
    reader = ParquetEpisodes(folder)
    assert list(reader.changed_files()) == []
    flip_byte(folder / reader.files[1]["path"], -1)
    (message,) = reader.changed_files()
    start, end = reader.ends[0], reader.ends[1] - 1
    assert f"{folder}/data/train-00001-of-" in message
    assert f"(episodes {start} to {end}) is not what was prepared; copy the file again" in message
    assert list(reader.changed_files(count=start)) == [] != list(reader.changed_files(count=start + 1))


def test_one_flipped_byte_of_an_episode_makes_it_bad_where_its_pictures_are_read(folder):
    reader = ParquetEpisodes(folder)
    path = folder / reader.files[0]["path"]
    columns = pq.ParquetFile(path).metadata.row_group(0)
    pictures = max(map(columns.column, range(columns.num_columns)), key=lambda column: column.total_compressed_size)
    flip_byte(path, pictures.data_page_offset + 300)  # within the first page
    with pytest.raises(BadEpisodeError, match="row group 0 can't be read .*CRC"):
        ParquetEpisodes(folder)[0]


def test_an_unreachable_hub_is_not_taken_for_a_bad_episode(folder, monkeypatch):
    def disconnected(storage, path):
        raise OfflineModeIsEnabled("no route to host")

    reader = ParquetEpisodes(folder)
    monkeypatch.setattr(type(reader.storage), "open", disconnected)
    with pytest.raises(ValueError, match="the Hub at .* can't be reached .no route to host.. Check the con") as refusal:
        reader[0]
    assert not isinstance(refusal.value, BadEpisodeError)


def test_a_missing_file_is_named_at_opening(folder):
    next(folder.glob("data/train-00001-*")).unlink()
    with pytest.raises(ValueError, match="lacks data/train-00001-of-.*copy the file again, or prepare"):
        ParquetEpisodes(folder)


def test_a_missing_split_is_refused_with_those_that_exist(folder):
    with pytest.raises(ValueError, match="has no split 'val'; it has train"):
        ParquetEpisodes(folder, split="val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no manifest.json; finish `instructvla prepare`"),
        ("{", "manifest.json is damaged"),
        ("[]", "is not that of `instructvla prepare`"),
        (json.dumps({"format": "instructvla-episodes", "format_version": 99}), "has format version 99"),
    ],
)
def test_a_bad_manifest_is_refused(folder, content, message):
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        ParquetEpisodes(folder)


def test_a_hub_dataset_is_streamed_row_group_by_row_group(folder, tmp_path):
    prepare(EPISODES, tmp_path / "hub", split="train")
    with HubServer() as hub:
        run_with_endpoint(
            hub,
            f"""
            from pathlib import Path
            from huggingface_hub import HfApi
            from instructvla.training.data.readers import open_episodes

            HfApi().create_repo("org/bridge", repo_type="dataset")
            HfApi().upload_folder(folder_path={str(tmp_path / "hub")!r}, repo_id="org/bridge", repo_type="dataset")
            reader = open_episodes("org/bridge")
            local = open_episodes({str(tmp_path / "hub")!r})
            assert len(reader) == 7 and reader.fingerprint == local.fingerprint
            assert reader[4].images == local[4].images
            assert reader.has_checksums and list(reader.changed_files()) == []
            reader.files[0]["sha256"] = "of another content"
            assert len(list(reader.changed_files())) == 1
            assert not [path for path in Path("hf_home").rglob("*.parquet")]
            for source, revision in (("org/absent", None), ("org/bridge", "nope")):
                try:
                    open_episodes(source, revision=revision)
                except ValueError as error:
                    assert "no Hub repository that can be read" in str(error), error
                else:
                    raise AssertionError((source, revision))
            """,
            tmp_path,
        )
        transfers = hub.find("GET", ".parquet")
        assert transfers and {request.status for request in transfers} == {206}


def read_all(reader, times, queue):
    wanted = [EPISODES[number].actions for number in range(len(EPISODES))]
    numbers = list(range(len(reader))) * times
    queue.put(all(np.array_equal(reader[number].actions, wanted[number]) for number in numbers))


def test_forked_processes_read_the_same_files_without_disturbing_each_other(folder):
    reader = ParquetEpisodes(folder)
    reader[0]  # opens a file
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=read_all, args=(reader, 40, queue), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [True, True]
