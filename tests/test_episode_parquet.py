"""Claims about episodes in Parquet: nothing is lost, the same episodes give the same bytes, `datasets` reads them."""

from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from instructvla.training.data.episode_parquet import (
    EpisodeWriter,
    episode_from_table,
    episode_schema,
    episode_table,
    write_episodes,
)
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Turn
from tests.memory_episodes import bridge_episodes

READER = bridge_episodes(3)
ANNOTATION = Annotation("A plate.", (Turn("What is there?", "A plate."),), (Turn("Serve it", "I put it down."),), ())


def annotated_episode():
    return replace(READER[0], annotation=ANNOTATION, language_motions=["move up", None, "stop", "open gripper"])


def assert_same(one, other):
    for name in ("actions", "states"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    nothing = {"actions": np.zeros((len(one), 1), np.float32), "states": None}
    assert vars(replace(one, **nothing)) | nothing == vars(replace(other, **nothing)) | nothing


@pytest.mark.parametrize("episode", [READER[1], annotated_episode()], ids=["plain", "annotated"])
def test_an_episode_comes_back_as_it_was(tmp_path, episode):
    write_episodes(tmp_path / "one.parquet", [episode], READER.description)
    again = episode_from_table(pq.read_table(tmp_path / "one.parquet"), "one.parquet")
    assert_same(again, episode)


def test_what_is_missing_stays_missing(tmp_path):
    episode = replace(READER[0], file_path=None, instructions=[None] * 4, annotation=Annotation())
    table = episode_table(episode, episode_schema(READER.description))
    again = episode_from_table(table, "table")
    assert (again.file_path, again.instructions, again.language_motions) == (None, [None] * 4, None)
    assert again.annotation == Annotation()


def test_an_episode_without_states_has_no_such_column():
    description = replace(READER.description, state_names=(), state_units=())
    table = episode_table(replace(READER[0], states=None), episode_schema(description))
    assert "state" not in table.column_names
    assert episode_from_table(table, "table").states is None


def test_each_episode_is_a_row_group_of_its_own(tmp_path):
    write_episodes(tmp_path / "three.parquet", [READER[number] for number in range(3)], READER.description)
    file = pq.ParquetFile(tmp_path / "three.parquet")
    assert file.num_row_groups == 3
    assert_same(episode_from_table(file.read_row_group(2), "group 2"), READER[2])


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        write_episodes(tmp_path / name, [READER[0], annotated_episode()], READER.description)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_datasets_reads_pictures_and_vectors(tmp_path):
    episodes = [annotated_episode(), READER[1]]
    write_episodes(tmp_path / "two.parquet", episodes, READER.description)
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "two.parquet"), cache_dir=tmp_path / "cache")
    row = rows["train"][5]
    assert isinstance(row["images.primary"], Image.Image) and row["images.primary"].size == (16, 16)
    np.testing.assert_array_equal(np.float32(row["action"]), episodes[1].actions[1])
    assert (row["episode_id"], row["frame_index"], row["language_motion"]) == ("3", 1, None)
    assert rows["train"][0]["annotation"]["qa"] == [{"question": "What is there?", "answer": "A plate."}]
    assert rows["train"].features["images.primary"] == datasets.Image()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": {"wrist": READER[0].images["primary"]}},
            r"has cameras \['wrist'\], but its dataset has",
        ),
        ({"actions": np.zeros((4, 6), np.float32)}, "bridge_dataset/3: its action has 6 dimensions.*has 7"),
        ({"states": None}, "its state has None dimensions, but its dataset's has 8"),
    ],
)
def test_an_episode_with_other_columns_is_bad_and_not_written(tmp_path, changes, message):
    with EpisodeWriter(tmp_path / "file", episode_schema(READER.description)) as writer:
        with pytest.raises(BadEpisodeError, match=message):
            writer.write(replace(READER[0], **changes))
        writer.write(READER[1])
    assert pq.ParquetFile(tmp_path / "file").num_row_groups == 1


def test_rows_that_are_no_episode_are_refused():
    table = episode_table(READER[0], episode_schema(READER.description))
    with pytest.raises(BadEpisodeError, match="group 0 is no episode: its rows are not the frames of one episode"):
        episode_from_table(table.slice(1), "group 0")
    with pytest.raises(BadEpisodeError, match="group 0 is no episode: .*action"):
        episode_from_table(table.drop_columns(["action"]), "group 0")
    with pytest.raises(BadEpisodeError, match="group 0 is no episode"):
        episode_from_table(pa.table({"a": [1]}), "group 0")
