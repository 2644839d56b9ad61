"""Claims about `instructvla download vla-it`, with the real client against a local Hub."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from instructvla.training.data.vla_it_download import REPOSITORY, RemoteFile, app, choose, require_room
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
    from instructvla.training.data.vla_it_download import app

    time.sleep = lambda seconds: os._exit(9)  # where the client waits before it tries again
    app(args=["vla-it", "--output", "out", "--part", "{}"])
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        repo = server.repos["datasets", REPOSITORY] = Repo("datasets", REPOSITORY, private=False)
        repo.commit("main", dict(FILES))
        yield server


@pytest.fixture
def download(hub, tmp_path, monkeypatch) -> Callable[..., Result]:
    """Calls `download vla-it --output out …` in this process, with the local Hub as the client's."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["vla-it", "--output", "out", *arguments])


def transferred(hub: HubServer) -> list[str]:
    return [request.path.split("/resolve/")[1].split("/", 1)[1] for request in hub.find("GET", "/resolve/")]


def downloaded(tmp_path: Path) -> list[str]:
    """All files that are there, whole or not."""
    paths = (path for path in (tmp_path / "out").rglob("*") if path.is_file())
    return sorted(path.relative_to(tmp_path / "out").as_posix() for path in paths)


def assert_is_there(tmp_path: Path, *names: str) -> None:
    assert [name for name in names if (tmp_path / "out" / name).read_bytes() != FILES[name].content] == []


def test_only_the_parts_asked_for_are_transferred_and_only_once(hub, tmp_path, download):
    bridge = sorted(name for name in FILES if "bridge" in name)
    annotation = download("--annotations", "--dataset", "bridge")
    assert (annotation.exit_code, transferred(hub)) == (0, ["annotation/bridge_instruction.json"])
    assert annotation.stdout.startswith("out: 1 file, 14 B, checked, of revision ")

    assert download("--part", "bridge_dataset/*-00001-of-*", "--part", "bridge_dataset/*.json").exit_code == 0
    assert sorted(transferred(hub)[1:]) == sorted([SECOND_SHARD, "bridge_dataset/1.0.0/features.json"])

    assert download("--dataset", "bridge").exit_code == 0
    assert sorted(transferred(hub)) == bridge
    assert_is_there(tmp_path, *bridge)
    assert downloaded(tmp_path) == bridge


def test_a_killed_download_goes_on_where_it_stopped(hub, tmp_path, download):
    hub.interrupt_after = 11 * 1024**2
    with pytest.raises(AssertionError, match="the child exited with 9"):
        run_with_endpoint(hub, KILLED_WHEN_THE_CONNECTION_BREAKS.format(FIRST_SHARD), tmp_path)
    assert not (tmp_path / "out" / FIRST_SHARD).exists()
    assert download("--part", FIRST_SHARD).exit_code == 0
    assert [request.status for request in hub.find("GET", "/resolve/")] == [200, 206]
    assert_is_there(tmp_path, FIRST_SHARD)
    assert downloaded(tmp_path) == [FIRST_SHARD]


def test_corrupted_content_is_named_and_not_kept(hub, tmp_path, download):
    commit = hub.repos["datasets", REPOSITORY].resolve("main")
    broken = ["bridge_dataset/1.0.0/features.json", SECOND_SHARD]  # in git itself, and in LFS
    for name in broken:
        commit.files[name] = Blob(FILES[name].content, lfs=FILES[name].lfs)
        commit.files[name].content = b"x" * len(FILES[name].content)
    result = download("--part", "bridge_dataset/*")
    assert result.exit_code == 2
    assert "error: 2 of 3 files did not arrive with the content that the repository promises" in result.stderr
    assert all(name in result.stderr.splitlines()[-1] for name in broken)
    assert downloaded(tmp_path) == [FIRST_SHARD]

    commit.files.update(FILES)
    (tmp_path / "out" / SECOND_SHARD).write_bytes(b"secand")  # a wrong file of the right size
    assert download("--part", "bridge_dataset/*").exit_code == 0
    assert_is_there(tmp_path, FIRST_SHARD, *broken)
    assert transferred(hub).count(FIRST_SHARD) == 1


def test_a_full_disk_is_told_before_anything_is_transferred(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    huge = RemoteFile("huge.tfrecord", 25_000_000, "ab" * 32, "")
    with pytest.raises(ValueError, match="There is no room for 25 MB in .*out; make room, ask for fewer --part"):
        require_room(tmp_path / "out", [huge])
    huge.partial(tmp_path).write_bytes(b"x" * 6_000_000)
    require_room(tmp_path, [huge])


def test_a_hub_that_cannot_be_read_is_one_message(hub, tmp_path, monkeypatch):
    arguments = ["vla-it", "--annotations", "--output", str(tmp_path / "out")]

    def output_of(endpoint: str, *more: str) -> str:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        result = CliRunner().invoke(app, [*arguments, *more])
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert not (tmp_path / "out").exists()
        return result.stderr

    unreadable = "error: The data set '{}' can't be read from the Hub: "
    assert output_of(hub.endpoint, "--repo", "org/no").startswith(unreadable.format("org/no") + "404 Client Error")
    assert "Invalid rev id: v9" in output_of(hub.endpoint, "--revision", "v9")
    away = output_of("http://127.0.0.1:9")
    assert away.startswith(unreadable.format(REPOSITORY) + "the Hub at http://127.0.0.1:9 can't be reached (")
    assert "Check the connection or HF_ENDPOINT; what was downloaded is kept, run the command again" in away
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "the Hub is not asked, as HF_HUB_OFFLINE is set. Unset it." in output_of(hub.endpoint)


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
