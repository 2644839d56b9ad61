"""Where each version of LeRobot keeps an episode; what `meta/` lacks or breaks is one message."""

import json

import pyarrow as pa
import pytest

from instructvla.training.data import lerobot_layout
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.lerobot_layout import VideoSpan, read_layout
from tests.lerobot_writer import FRONT, WRIST, LerobotDataset, write_table


def rewrite_info(folder, **changes):
    path = folder / "meta/info.json"
    info = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in info.items() if value is not None}))


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_version_2_has_a_file_for_each_episode(tmp_path, version):
    layout = read_layout(LerobotDataset(version).write(tmp_path))
    assert (len(layout), layout.fps, layout.tasks) == (3, 10.0, {0: "push the cup", 1: "lift the lid"})
    files = layout[2]
    assert (files.data_file, files.shared) == ("data/chunk-001/episode_000002.parquet", False)  # chunks of 2
    assert files.videos == {
        camera: VideoSpan(f"videos/chunk-001/{camera}/episode_000002.mp4", 0.0, None) for camera in (FRONT, WRIST)
    }
    assert (files.episode_index, files.length) == (2, 7)


def test_version_3_points_into_files_of_several_episodes(tmp_path):
    layout = read_layout(LerobotDataset("v3.0").write(tmp_path))
    assert (len(layout), layout.fps, layout.tasks) == (3, 10.0, {0: "push the cup", 1: "lift the lid"})
    files = layout[1]
    assert (files.data_file, files.shared) == ("data/chunk-000/file-000.parquet", True)
    assert files.videos[FRONT] == VideoSpan(f"videos/{FRONT}/chunk-000/file-000.mp4", 0.5, 1.4)
    assert layout[2].videos[WRIST] == VideoSpan(f"videos/{WRIST}/chunk-000/file-001.mp4", 0.0, 0.7)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_metadata_is_what_the_list_says_of_the_episode_itself(tmp_path, version):
    dataset = LerobotDataset(version, extra={"file_path": ["a/0", None, "a/2"]})
    layout = read_layout(dataset.write(tmp_path))
    assert layout[0].metadata == {"episode_index": 0, "tasks": ["push the cup"], "length": 5, "file_path": "a/0"}
    assert "file_path" not in layout[1].metadata  # what is missing stays missing
    assert not any(name.startswith("stats/") for name in layout.episodes.column_names)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_an_index_beyond_the_last_ends_a_loop(tmp_path, version):
    layout = read_layout(LerobotDataset(version, pictures="image").write(tmp_path))
    assert [files.episode_index for files in layout] == [0, 1, 2]
    assert layout[-1].episode_index == 2
    with pytest.raises(IndexError, match="episode 3 of 3"):
        layout[3]


def test_episodes_are_in_the_order_of_their_indices(tmp_path):
    LerobotDataset("v2.1", pictures="image").write(tmp_path)
    path = tmp_path / "meta/episodes.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert [files.episode_index for files in read_layout(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize("name", ["task", "__index_level_0__"])
def test_tasks_of_version_3_are_found_whatever_pandas_called_them(tmp_path, name):
    LerobotDataset("v3.0", pictures="image").write(tmp_path)
    table = pa.table({name: ["open", "close"], "task_index": [1, 0]})
    write_table(tmp_path / "meta/tasks.parquet", table)
    assert read_layout(tmp_path).tasks == {0: "close", 1: "open"}


@pytest.mark.parametrize("total", [3, 100])
def test_a_total_that_differs_from_the_list_is_told(tmp_path, monkeypatch, total):
    told = []
    monkeypatch.setattr(lerobot_layout.logger, "warning", told.append)
    LerobotDataset("v2.1", pictures="image").write(tmp_path)
    rewrite_info(tmp_path, total_episodes=total)
    assert len(read_layout(tmp_path)) == 3
    assert [("promises 100 episodes" in text, "has 3" in text) for text in told] == [(True, True)] * (total == 100)


def replace(name, text):
    return lambda folder: (folder / name).write_text(text)


PROBLEMS = {
    r"is no LeRobot dataset: it has no meta/info\.json": ("v2.1", lambda folder: (folder / "meta/info.json").unlink()),
    r"info\.json is no JSON": ("v2.1", replace("meta/info.json", "{")),
    r"codebase_version is 'v1\.6', but v2\.0, v2\.1, v3\.0 can be read; convert": (
        "v2.1",
        lambda folder: rewrite_info(folder, codebase_version="v1.6"),
    ),
    r"info\.json lacks 'data_path'": ("v3.0", lambda folder: rewrite_info(folder, data_path=None)),
    "has video features but no video_path": ("v3.0", lambda folder: rewrite_info(folder, video_path=None)),
    "fps is 0, but must be positive": ("v2.0", lambda folder: rewrite_info(folder, fps=0)),
    r"episodes\.jsonl, line 1 is no JSON": ("v2.1", replace("meta/episodes.jsonl", '{"episode_index": 0, "le')),
    r"episodes\.jsonl lists no episodes": ("v2.1", replace("meta/episodes.jsonl", "\n")),
    r"episodes\.jsonl has an episode without length": ("v2.1", replace("meta/episodes.jsonl", '{"episode_index": 0}')),
    "lists an episode_index twice": ("v2.1", replace("meta/episodes.jsonl", '{"episode_index": 0, "length": 1}\n' * 2)),
    "have values of different types": (
        "v2.1",
        replace("meta/episodes.jsonl", '{"episode_index": 0, "length": 1}\n{"episode_index": "b", "length": 1}'),
    ),
    r"tasks\.jsonl is missing": ("v2.1", lambda folder: (folder / "meta/tasks.jsonl").unlink()),
    r"tasks\.jsonl has a task without 'task'": ("v2.1", replace("meta/tasks.jsonl", '{"task_index": 0}')),
    r"tasks\.parquet is missing": ("v3.0", lambda folder: (folder / "meta/tasks.parquet").unlink()),
    r"file-001\.parquet is truncated or no Parquet file": (
        "v3.0",
        replace("meta/episodes/chunk-000/file-001.parquet", "PAR1"),
    ),
}


@pytest.mark.parametrize("message", PROBLEMS)
def test_what_is_missing_or_broken_is_named(tmp_path, message):
    version, spoil = PROBLEMS[message]
    spoil(LerobotDataset(version, lengths=(2, 2), tasks=("a", "b")).write(tmp_path))
    with pytest.raises(ValueError, match=message):
        read_layout(tmp_path)


def test_an_episode_whose_place_is_not_listed_is_a_bad_one_alone(tmp_path):
    LerobotDataset("v3.0", pictures="image").write(tmp_path)
    row = {"episode_index": 2, "length": 7, "data/chunk_index": 0}
    write_table(tmp_path / "meta/episodes/chunk-000/file-002.parquet", pa.Table.from_pylist([row]))
    layout = read_layout(tmp_path)
    assert layout[1].length == 9
    with pytest.raises(BadEpisodeError, match="^the list in meta/ says nothing of 'data/file_index'"):
        layout[2]
