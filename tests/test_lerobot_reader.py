"""Episodes of LeRobot datasets of each version; a bad one is named with its file and the remedy."""

import pickle
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.lerobot_reader import LerobotReader
from tests.hub_server import HubServer, run_with_endpoint
from tests.lerobot_writer import FRONT, WRIST, LerobotDataset, number_on, write_table, write_video

SHARED = Path(__file__).parents[2] / "shared" / "data"
VERSIONS = ["v2.0", "v2.1", "v3.0"]
DATA = {"v2.1": "data/chunk-000/episode_000001.parquet", "v3.0": "data/chunk-000/file-000.parquet"}
VIDEO = {"v2.1": f"videos/chunk-000/{WRIST}/episode_000001.mp4", "v3.0": f"videos/{WRIST}/chunk-000/file-000.mp4"}


def rewrite_rows(path, change):
    write_table(path, change(pq.read_table(path)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("pictures", "codec"), [("video", "h264"), ("video", "av1"), ("image", "h264")])
def test_every_row_has_its_pictures_and_its_task(tmp_path, version, pictures, codec):
    dataset = LerobotDataset(version, pictures=pictures, codec=codec)
    reader, start = LerobotReader(dataset.write(tmp_path)), 0
    assert len(reader) == 3
    for episode, (length, task) in enumerate(zip(dataset.lengths, dataset.tasks, strict=True)):
        raw, numbers = reader[episode], list(range(start, start + length))
        assert [number_on(picture) for picture in raw.steps[FRONT]] == numbers
        assert [number_on(picture) for picture in raw.steps[WRIST]] == [1000 - number for number in numbers]
        assert raw.steps["task"] == [task] * length
        assert raw.steps["observation.state"].tolist() == [[number] * 3 for number in numbers]
        assert raw.steps["action"].tolist() == [[episode, step] for step in range(length)]
        assert raw.metadata["episode_index"] == episode
        start += length


@pytest.mark.parametrize("version", VERSIONS)
def test_columns_keep_their_names_shapes_and_types(tmp_path, version):
    raw = LerobotReader(LerobotDataset(version, pictures="image").write(tmp_path))[1]
    arrays = {name: (values.shape, values.dtype) for name, values in raw.steps.items() if hasattr(values, "shape")}
    assert arrays == {
        "observation.state": ((9, 3), np.float32),
        "action": ((9, 2), np.float32),
        "grid": ((9, 2, 3), np.float32),
        "next.done": ((9,), bool),
        "timestamp": ((9,), np.float32),
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), ((9,), np.int64)),
    }
    assert raw.steps["grid"][4].tolist() == [[4, 4, 4], [0, 1, 2]]
    assert raw.steps["next.done"].tolist() == [False] * 8 + [True]
    assert raw.control_rate_hz == 10.0
    assert raw.source.startswith(f"{tmp_path}/data/") and raw.source.endswith(".parquet, episode_index 1")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("pictures", ["video", "image"])
def test_only_the_cameras_asked_for_are_read(tmp_path, version, pictures):
    LerobotDataset(version, pictures=pictures).write(tmp_path)
    for path in tmp_path.glob(f"videos/**/{WRIST}/**/*.mp4"):
        path.unlink()
    reader = LerobotReader(tmp_path, cameras=[FRONT])
    assert reader.cameras == (FRONT,)
    assert len(reader[1].steps[FRONT]) == 9 and WRIST not in reader[1].steps
    assert LerobotReader(tmp_path, cameras=[])[0].steps.keys() & {FRONT, WRIST} == set()


def test_pictures_of_videos_are_jpeg_or_png_as_asked(tmp_path):
    LerobotDataset("v3.0").write(tmp_path)
    for asked, format_ in ((None, "JPEG"), ("png", "PNG")):
        options = {"picture_format": asked} if asked else {}
        picture = LerobotReader(tmp_path, cameras=[FRONT], **options)[2].steps[FRONT][0]
        assert Image.open(BytesIO(picture)).format == format_


def test_embedded_pictures_stay_as_they_are(tmp_path):
    LerobotDataset("v2.1", pictures="image").write(tmp_path)
    stored = pq.read_table(tmp_path / DATA["v2.1"])[FRONT].to_pylist()
    assert LerobotReader(tmp_path)[1].steps[FRONT] == [picture["bytes"] for picture in stored]


@pytest.mark.parametrize("row_group_size", [1, 4, 1000])
def test_row_groups_may_hold_parts_of_several_episodes(tmp_path, row_group_size):
    dataset = LerobotDataset("v3.0", pictures="image", episodes_per_file=3, row_group_size=row_group_size)
    reader = LerobotReader(dataset.write(tmp_path))
    assert [len(reader[index].steps["action"]) for index in (2, 0, 1)] == [7, 5, 9]
    assert reader[2].steps["index"].tolist() == list(range(14, 21))


def test_the_reader_travels_to_workers(tmp_path):
    reader = pickle.loads(pickle.dumps(LerobotReader(LerobotDataset("v3.0").write(tmp_path))))
    assert number_on(reader[1].steps[FRONT][0]) == 5


def test_missing_numbers_are_nan_and_missing_texts_none(tmp_path):
    LerobotDataset("v2.1", pictures="image").write(tmp_path)
    texts, numbers = ["a", None] + ["b"] * 7, [1.0, None] + [0.0] * 7
    rewrite_rows(
        tmp_path / DATA["v2.1"], lambda rows: rows.append_column("note", [texts]).append_column("x", [numbers])
    )
    steps = LerobotReader(tmp_path)[1].steps
    assert steps["note"] == texts
    assert np.isnan(steps["x"]).tolist() == [False, True] + [False] * 7


def changed(column, values):
    return lambda rows: rows.set_column(rows.column_names.index(column), column, [values])


def spoil_rows(change):
    return lambda folder, version: rewrite_rows(folder / DATA[version], change)


def remove(files):
    return lambda folder, version: (folder / files[version]).unlink()


def truncate(files):
    def cut(folder, version):
        path = folder / files[version]
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


def shorten_video(folder, version):
    write_video(folder / VIDEO[version], range(8 if version == "v2.1" else 13), 10)


PROBLEMS = {
    r"data/chunk-000/.*\.parquet is missing; copy it again": remove(DATA),
    r"\.parquet is truncated or no Parquet file .*copy it again": truncate(DATA),
    r"videos/.*\.mp4 is missing; copy it again": remove(VIDEO),
    r"\.mp4 is truncated or no video .*copy it again": truncate(VIDEO),
    r"\.mp4: row 8 needs a frame within 0\.0500 s of (0\.8|1\.3)000 s, but the nearest is at (0\.7|1\.2)000 s": (
        shorten_video
    ),
    r"\.parquet has (8|3) rows of it, but meta/ lists 9": spoil_rows(lambda rows: rows.slice(0, 8)),
    r"\.parquet lacks action, grid, which meta/info\.json promises; it has observation\.state,": spoil_rows(
        lambda rows: rows.drop_columns(["action", "grid"])
    ),
    r"its task_index 9 is not among the 2 tasks in meta/": spoil_rows(
        lambda rows: changed("task_index", [9] * len(rows))(rows)
    ),
    r"the rows of action are missing or of different lengths": spoil_rows(
        lambda rows: changed("action", [[0.0, 1.0]] * (len(rows) - 1) + [[0.0]])(rows)
    ),
    r"next\.done holds timestamp": spoil_rows(
        lambda rows: changed("next.done", pa.array([0] * len(rows), pa.timestamp("s")))(rows)
    ),
}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("message", PROBLEMS)
def test_a_bad_episode_is_named_with_its_file_and_the_remedy(tmp_path, message, version):
    folder = LerobotDataset(version).write(tmp_path)
    PROBLEMS[message](folder, version)
    reader = LerobotReader(folder)
    with pytest.raises(BadEpisodeError, match=rf"^{folder}, episode_index 1: .*{message}"):
        reader[1]
    assert len(reader[2].steps["task"]) == 7  # the others can be read


def test_a_row_without_its_picture_is_named(tmp_path):
    LerobotDataset("v2.1", pictures="image").write(tmp_path)
    pictures = [{"bytes": b"", "path": "a"}] * 3 + [{"bytes": None, "path": "b"}] * 6
    rewrite_rows(tmp_path / DATA["v2.1"], changed(FRONT, pictures))
    with pytest.raises(BadEpisodeError, match=f"episode_index 1: {DATA['v2.1']}: row 3 of {FRONT} has no picture in"):
        LerobotReader(tmp_path)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cameras": ["front"]}, f"has no camera front; it has {FRONT}, {WRIST}"),
        ({"picture_format": "gif"}, "picture_format is 'gif', but jpeg and png exist"),
    ],
)
def test_options_that_do_not_exist_are_refused(tmp_path, options, message):
    LerobotDataset("v2.1", lengths=(1,), tasks=("a",)).write(tmp_path)
    with pytest.raises(ValueError, match=message):
        LerobotReader(tmp_path, **options)


def test_of_a_hub_dataset_only_the_files_that_are_read_are_downloaded(tmp_path):
    LerobotDataset("v2.1", extra={"note": ["a", "b", "c"]}).write(tmp_path / "folder")
    (tmp_path / "folder" / VIDEO["v2.1"]).unlink()
    with HubServer() as hub:
        run_with_endpoint(
            hub,
            f"""
            import time
            from huggingface_hub import HfApi, constants
            from instructvla.training.data.episodes import BadEpisodeError
            from instructvla.training.data.lerobot_reader import LerobotReader

            api = HfApi()
            api.create_repo("org/robot", repo_type="dataset")
            first = api.upload_folder(folder_path="folder", repo_id="org/robot", repo_type="dataset").oid
            reader = LerobotReader("org/robot", cameras=["{FRONT}"])
            api.delete_folder("meta", repo_id="org/robot", repo_type="dataset")  # the reader stays with its commit
            raw = reader[2]
            assert len(raw.steps["{FRONT}"]) == 7 and raw.metadata["note"] == "c"
            try:
                LerobotReader("org/robot", revision=first)[1]
            except BadEpisodeError as error:
                assert "org/robot, episode_index 1: {VIDEO["v2.1"]} is missing" in str(error), error
            else:
                raise AssertionError("a missing video went unnoticed")
            time.sleep = lambda seconds: None  # the client's, between its attempts
            constants.HUGGINGFACE_CO_URL_TEMPLATE = "http://127.0.0.1:9/{{repo_id}}/{{revision}}/{{filename}}"
            try:
                reader[0]
            except BadEpisodeError as error:
                raise AssertionError("an unreachable Hub is no bad episode, which may be skipped") from error
            except ValueError as error:
                assert "no Hub repository that can be read" in str(error), error
            else:
                raise AssertionError("episode 0 came from nowhere")
            """,
            tmp_path,
        )
        fetched = {Path(request.path).name for request in hub.find("GET", "/resolve/")}
    assert fetched >= {"info.json", "episodes.jsonl", "tasks.jsonl", "episode_000002.parquet", "episode_000002.mp4"}
    assert "episode_000000.parquet" not in fetched and "episode_000000.mp4" not in fetched


def test_neither_folder_nor_hub_dataset_is_refused():
    with pytest.raises(ValueError, match="'/nowhere/at/all' is no folder here, and no Hub repository"):
        LerobotReader("/nowhere/at/all")


@pytest.mark.skipif(not (SHARED / "lerobot_v21_g1").is_dir(), reason="no shared/data/lerobot_v21_g1 beside the repo")
def test_a_real_dataset_reads_where_its_files_are():
    folder = SHARED / "lerobot_v21_g1"
    reader = LerobotReader(folder)
    assert (len(reader), reader.cameras) == (100, ("observation.images.cam_high",))
    raw = reader[2]
    assert raw.steps["action"].shape == raw.steps["observation.state"].shape == (343, 26)
    assert set(raw.steps["task"]) == {"Pick up the yellow bottle on the table."}
    assert raw.control_rate_hz == 30.0
    pictures = raw.steps["observation.images.cam_high"]
    assert len(pictures) == 343 and Image.open(BytesIO(pictures[-1])).size == (640, 480)
    with av.open(str(next(folder.glob("videos/**/episode_000002.mp4")))) as container:
        frames = [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]
    assert len(frames) == 343  # a frame for each row; the recording itself repeats some, and so do the pictures
    repeated = [frame == before for before, frame in pairwise(frames)]
    assert [picture == before for before, picture in pairwise(pictures)] == repeated
    assert 0 < sum(repeated) < 342
    with pytest.raises(
        BadEpisodeError, match=r"_index 0: data/chunk-000/episode_000000\.parquet is missing; copy it again$"
    ):
        reader[0]
