"""Files of a folder or of a Hub repository; what is neither is one clear message."""

import errno
import time

import pytest

from instructvla.hub_source import hub_problem, local_file, local_folder, source_files
from tests.hub_server import HubServer, run_with_endpoint

READERS = [source_files, lambda source: local_folder(source, ["*"]), lambda source: local_file(source, "config.json")]


def test_folder_is_used_as_it_is(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.json", "checkpoints/step.pt"):
        (tmp_path / name).write_text("{}")
    assert source_files(tmp_path) == ["checkpoints/step.pt", "config.json"]
    assert local_folder(str(tmp_path), ["config.json"]) == tmp_path


def test_repository_is_listed_and_only_what_matches_is_downloaded(tmp_path):
    with HubServer() as hub:
        run_with_endpoint(
            hub,
            """
            from pathlib import Path
            from huggingface_hub import HfApi
            from instructvla.hub_source import local_folder, source_files

            for name in ("config.json", "weights/model.bin"):
                path = Path("folder", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
            HfApi().create_repo("org/run")
            HfApi().upload_folder(folder_path="folder", repo_id="org/run")
            assert set(source_files("org/run")) >= {"config.json", "weights/model.bin"}
            folder = local_folder("org/run", ["config.json"])
            assert [path.name for path in folder.rglob("*") if path.is_file()] == ["config.json"]
            for revision, source in (("nope", "org/run"), (None, "org/absent")):
                for call in (source_files, lambda *given: local_folder(given[0], ["*"], given[1])):
                    try:
                        call(source, revision)
                    except ValueError as error:
                        assert "no Hub repository that can be read: 404 Client Error" in str(error), error
                        assert "Check its name and revision, log in" in str(error), error
                    else:
                        raise AssertionError((source, revision))
            """,
            tmp_path,
        )


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("source", ["/no/such/run.pt", "./missing", "a/b/c", "../typo", "~/run"])
def test_what_can_be_no_repository_is_a_missing_folder_without_asking_the_hub(read, source, monkeypatch):
    """In our words; the Hub's would be on which letters a "Repo id" may have."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="is no folder here") as refusal:
        read(source)
    assert str(refusal.value) == (
        f"{source!r} is no folder here, and no Hub repository can have that name; give a folder that exists, or a "
        "repository as owner/name."
    )


@pytest.mark.parametrize("read", READERS)
def test_file_is_refused_with_what_to_give(read, tmp_path):
    (tmp_path / "model.pt").write_text("")
    with pytest.raises(ValueError, match="is a file; give the folder that holds it"):
        read(tmp_path / "model.pt")


@pytest.mark.parametrize("read", READERS[:2])  # a single file is tried again for some seconds
def test_without_a_network_it_is_one_message_at_once(read, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(ValueError, match="'org/absent' is no folder here, and no Hub repository") as refusal:
        read("org/absent")
    assert str(refusal.value).endswith(
        "the Hub at http://127.0.0.1:9 can't be reached ([Errno 111] Connection refused). Check the connection or "
        "HF_ENDPOINT, or give a local folder; what was downloaded is kept, run the command again to resume."
    )
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("read", READERS)
def test_an_offline_client_is_told_from_a_missing_repository(read, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the Hub is not asked, as HF_HUB_OFFLINE is set. Unset it, or give a local"):
        read("org/absent")


def test_a_full_disk_is_not_taken_for_a_missing_connection():
    error = HfHubHTTPErrorWithCause(OSError(errno.ENOSPC, "No space left on device"))
    assert hub_problem(error) == "[Errno 28] No space left on device. Make room, or see to the permissions."


class HfHubHTTPErrorWithCause(OSError):
    def __init__(self, cause):
        super().__init__("the download failed")
        self.__cause__ = cause


def test_a_file_of_a_folder_is_given_or_missing(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text("{}")
    assert local_file(tmp_path, "meta/info.json") == tmp_path / "meta/info.json"
    for name in ("meta/tasks.jsonl", "meta"):
        with pytest.raises(FileNotFoundError):
            local_file(tmp_path, name)


def test_files_of_a_dataset_are_listed_and_fetched_one_by_one(tmp_path):
    with HubServer() as hub:
        run_with_endpoint(
            hub,
            """
            from huggingface_hub import HfApi
            from instructvla.hub_source import local_file, source_files

            api, dataset = HfApi(), {"repo_id": "org/robot", "repo_type": "dataset"}
            api.create_repo(**dataset)
            for name in ("a.txt", "b.txt"):
                api.upload_file(path_or_fileobj=name.encode(), path_in_repo=name, **dataset)
            assert set(source_files("org/robot", repo_type="dataset")) >= {"a.txt", "b.txt"}
            assert local_file("org/robot", "a.txt", repo_type="dataset").read_text() == "a.txt"
            try:
                local_file("org/robot", "c.txt", repo_type="dataset")
            except FileNotFoundError as error:
                assert "org/robot has no c.txt" in str(error), error
            else:
                raise AssertionError("c.txt came from nowhere")
            for source, revision in (("org/robot", "nope"), ("org/absent", None)):
                try:
                    local_file(source, "a.txt", revision, repo_type="dataset")
                except ValueError as error:
                    assert "no Hub repository that can be read" in str(error), error
                else:
                    raise AssertionError((source, revision))
            """,
            tmp_path,
        )
        assert not hub.find("GET", "/resolve/main/b.txt")
