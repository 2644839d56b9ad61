"""Claims about `instructvla download vla-it`, with the real client against a local Hub."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.training.data.vla_it_download import REPOSITORY, RemoteFile, app, choose
from tests.hub_server import Blob, HubServer, Repo, run_with_endpoint

SHARD = bytes(range(256)) * 50_000  # 12.8 MB: more than one chunk of the client
FILES = {
    "README.md": Blob(b"# card"),
    "annotation/bridge_instruction.json": Blob(b'{"bridge": {}}', lfs=True),
    "annotation/fractal_instruction.json": Blob(b'{"fractal": {}}', lfs=True),
    "bridge_dataset/1.0.0/bridge_dataset-train.tfrecord-00000-of-00002": Blob(SHARD, lfs=True),
    "bridge_dataset/1.0.0/bridge_dataset-train.tfrecord-00001-of-00002": Blob(b"second", lfs=True),
    "bridge_dataset/1.0.0/features.json": Blob(b"{}"),
    "fractal20220817_data/0.1.0/features.json": Blob(b"[]"),
}
FIRST_SHARD, SECOND_SHARD = (name for name in FILES if "tfrecord" in name)
REMOTE = [RemoteFile(name, len(blob.content), None, "") for name, blob in FILES.items()]

KILLED_WHEN_THE_CONNECTION_BREAKS = """
    import os, time
    time.sleep = lambda seconds: os._exit(9)  # where the client waits before it tries again
"""
FULL_DISK = """
    import shutil
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(100, 100, 0)
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        repo = server.repos["datasets", REPOSITORY] = Repo("datasets", REPOSITORY, private=False)
        repo.commit("main", dict(FILES))
        yield server


def download(hub: HubServer, tmp_path: Path, *calls: str, before: str = "", **env: str) -> list[tuple[int, str]]:
    """Exit code and output of `download vla-it --output out …`, for each of the calls in one process."""
    code = f"""
    import json
    from typer.testing import CliRunner
    from instructvla.training.data.vla_it_download import app
    {before}
    results = [CliRunner().invoke(app, ["vla-it", "--output", "out", *call.split()]) for call in {calls!r}]
    print(json.dumps([(result.exit_code, result.stdout + result.stderr) for result in results]))
    """
    return [tuple(result) for result in json.loads(run_with_endpoint(hub, code, tmp_path, env).stdout)]


def transferred(hub: HubServer) -> list[str]:
    return [request.path.split("/resolve/")[1].split("/", 1)[1] for request in hub.find("GET", "/resolve/")]


def assert_is_there(tmp_path: Path, *names: str) -> None:
    assert [name for name in names if (tmp_path / "out" / name).read_bytes() != FILES[name].content] == []


def test_only_the_parts_asked_for_are_transferred_and_only_once(hub, tmp_path):
    bridge = sorted(name for name in FILES if "bridge" in name)
    part = "--part bridge_dataset/*-00001-of-* --part bridge_dataset/*.json"
    annotations, parts, whole = download(hub, tmp_path, "--annotations --dataset bridge", part, "--dataset bridge")
    assert annotations[0] == parts[0] == whole[0] == 0
    assert annotations[1].startswith("out: 1 file, 14 B, checked, of revision ")
    assert transferred(hub)[0] == "annotation/bridge_instruction.json"
    assert sorted(transferred(hub)[1:3]) == sorted([SECOND_SHARD, "bridge_dataset/1.0.0/features.json"])
    assert sorted(transferred(hub)) == bridge
    assert_is_there(tmp_path, *bridge)
    assert len([path for path in tmp_path.glob("out/**/*") if path.is_file()]) == len(bridge)
    assert not [request for request in hub.requests if request.status == 501]


def test_a_killed_download_goes_on_where_it_stopped(hub, tmp_path):
    hub.interrupt_after = 11 * 1024**2
    with pytest.raises(AssertionError, match="the child exited with 9"):
        download(hub, tmp_path, f"--part {FIRST_SHARD}", before=KILLED_WHEN_THE_CONNECTION_BREAKS)
    assert not (tmp_path / "out" / FIRST_SHARD).exists()
    ((code, _),) = download(hub, tmp_path, f"--part {FIRST_SHARD}")
    assert code == 0
    assert [request.status for request in hub.find("GET", "/resolve/")] == [200, 206]
    assert_is_there(tmp_path, FIRST_SHARD)


def test_corrupted_content_is_named_and_not_kept(hub, tmp_path):
    commit = hub.repos["datasets", REPOSITORY].resolve("main")
    broken = ["bridge_dataset/1.0.0/features.json", SECOND_SHARD]  # in git itself, and in LFS
    for name in broken:
        commit.files[name] = Blob(FILES[name].content, lfs=FILES[name].lfs)
        commit.files[name].content = b"x" * len(FILES[name].content)
    ((code, output),) = download(hub, tmp_path, "--part bridge_dataset/*")
    assert code == 2
    assert output.startswith("error: 2 of 3 files did not arrive with the content that the repository promises")
    assert all(name in output for name in broken) and FIRST_SHARD not in output
    assert [
        path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/**/*.*") if path.is_file()
    ] == [FIRST_SHARD]

    commit.files.update(FILES)
    (tmp_path / "out" / SECOND_SHARD).write_bytes(b"secand")  # a wrong file of the right size
    ((code, _),) = download(hub, tmp_path, "--part bridge_dataset/*")
    assert code == 0
    assert_is_there(tmp_path, FIRST_SHARD, *broken)
    assert transferred(hub).count(FIRST_SHARD) == 1


def test_a_full_disk_is_told_before_anything_is_transferred(hub, tmp_path):
    ((code, output),) = download(hub, tmp_path, "--annotations --dataset bridge", before=FULL_DISK)
    assert code == 2
    assert output.startswith("error: There is no room for 14 B in out; make room, ask for fewer --part")
    assert transferred(hub) == [] and not (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_read_is_one_message(hub, tmp_path):
    results = download(hub, tmp_path, "--annotations --repo org/absent", "--annotations --revision v9")
    results += download(hub, tmp_path, "--annotations", HF_ENDPOINT="http://127.0.0.1:9")
    for (code, output), reason in zip(results, ("Repository Not Found", "Invalid rev id: v9", "refused"), strict=True):
        assert code == 2
        assert output.startswith("error: The data set '") and output.count("\n") == 1
        assert "can't be read from the Hub" in output and reason in output
    assert not (tmp_path / "out").exists()


def test_conditions_narrow_each_other():
    def chosen(datasets=(), annotations=False, parts=()):
        return [file.name for file in choose(REMOTE, datasets, annotations, parts)]

    assert chosen(["fractal"]) == ["annotation/fractal_instruction.json", "fractal20220817_data/0.1.0/features.json"]
    assert chosen(["bridge", "fractal"], annotations=True) == [name for name in FILES if "annotation" in name]
    assert chosen(["bridge"], parts=["*.json"]) == [name for name in FILES if "bridge" in name and "json" in name]
    assert chosen(parts=["*"]) == list(FILES)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (
            ((), False, ()),
            r"holds README.md \(6 B\), annotation/bridge.*bridge_dataset/ \(12.8 MB\).*Ask for some of it",
        ),
        ((["libero"], False, ()), "No part of the repository is called libero"),
        (((), True, ["bridge_dataset/*"]), r"--part bridge_dataset/\* is the name of no file among .*annotation/"),
        ((["bridge_dataset"], True, ()), "No file is asked for by all conditions"),
    ],
)
def test_asking_for_nothing_or_for_what_is_not_there_tells_what_there_is(conditions, message):
    with pytest.raises(ValueError, match=message):
        choose(REMOTE, *conditions)


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    result = CliRunner().invoke(app, ["vla-it", "--annotations", "--output", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path / 'out'} is a file; give a folder.\n"
