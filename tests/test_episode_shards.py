"""Claims about shards: where a file ends depends on its episodes alone, and each is noted with what it holds."""

import pyarrow.parquet as pq
import pytest

from instructvla.training.data.episode_parquet import episode_schema
from instructvla.training.data.episode_shards import (
    ShardSettings,
    check_pictures,
    episode_bytes,
    final_files,
    totals,
    write_shards,
)
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.preparation_journal import Journal
from tests.memory_episodes import bridge_episodes, bridge_recording

READER = bridge_episodes(6)
SCHEMA = episode_schema(READER.description)


def shards_of(tmp_path, items, shard_size=1, skip_bad=False):
    journal, advanced = Journal(tmp_path, "train", {}), []
    settings = ShardSettings(SCHEMA, shard_size, skip_bad)
    write_shards(iter(list(enumerate(items))), journal, len(items), settings, advanced.append)
    return journal, sum(advanced)


def test_a_file_ends_with_the_episode_that_fills_it(tmp_path):
    episodes = [READER[number] for number in range(6)]
    two = episode_bytes(episodes[0]) + 1
    journal, advanced = shards_of(tmp_path, episodes, shard_size=two)
    assert [shard["episodes"] for shard in journal.shards] == [2, 2, 2] and advanced == 6
    assert [pq.ParquetFile(journal.staged(number)).num_row_groups for number in range(3)] == [2, 2, 2]


def test_what_a_split_holds_is_counted(tmp_path):
    journal, _ = shards_of(tmp_path, [READER[0], BadEpisodeError("record 1 is gone"), READER[2]], skip_bad=True)
    assert totals(journal) == {
        "episodes": 2,
        "frames": 8,
        "instructed": 2,
        "annotated": 0,
        "with_motion": 0,
        "control_rates_hz": [5.0],
        "camera_sizes": {"primary": ["16x16"]},
        "skipped": [{"episode": 1, "reason": "record 1 is gone"}],
    }


def test_bad_episodes_at_the_end_are_noted_without_a_file(tmp_path):
    journal, _ = shards_of(tmp_path, [READER[0], BadEpisodeError("gone"), BadEpisodeError("gone")], skip_bad=True)
    assert len(journal.files) == 1 and journal.next_episode == 3
    assert [episode["episode"] for episode in totals(journal)["skipped"]] == [1, 2]


def test_files_get_their_final_names_once_even_if_that_is_interrupted(tmp_path):
    journal, _ = shards_of(tmp_path, [READER[0], READER[1]])
    names = [f"data/train-0000{number}-of-00002.parquet" for number in range(2)]
    (tmp_path / "data").mkdir()
    journal.staged(0).rename(tmp_path / names[0])
    for _ in range(2):
        assert [file["path"] for file in final_files(tmp_path, journal)] == names
    (tmp_path / names[1]).unlink()
    with pytest.raises(ValueError, match="train-00001.parquet is gone; remove .* and prepare again"):
        final_files(tmp_path, journal)


def test_what_is_no_picture_is_bad(tmp_path):
    episode = READER.mapping.episode(bridge_recording(0, observation__image_0=[b"text"] * 6), 0)
    with pytest.raises(BadEpisodeError, match="camera primary of step 0 is neither JPEG nor PNG"):
        check_pictures(episode)
    truncated = READER.mapping.episode(bridge_recording(0, observation__image_0=[b"\xff\xd8\xff\xe0"] * 6), 0)
    with pytest.raises(
        BadEpisodeError, match="first picture of primary can't be decoded: its 4 bytes are .*; --skip-bad"
    ):
        shards_of(tmp_path, [truncated])
