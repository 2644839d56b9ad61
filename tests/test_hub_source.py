"""Files of a folder or of a Hub repository; what is neither is one clear message."""

import time

import pytest

from instructvla.hub_source import local_folder, source_files
from tests.hub_server import HubServer, run_with_endpoint


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
                        assert "no Hub repository that can be read" in str(error), error
                    else:
                        raise AssertionError((source, revision))
            """,
            tmp_path,
        )


@pytest.mark.parametrize("read", [source_files, lambda source: local_folder(source, ["*"])])
@pytest.mark.parametrize("source", ["/nowhere/at/all", "a/b/c", "../typo"])
def test_neither_folder_nor_repository_is_refused(read, source):
    with pytest.raises(ValueError, match=f"'{source}' is no folder here, and no Hub repository"):
        read(source)


@pytest.mark.parametrize("read", [source_files, lambda source: local_folder(source, ["*"])])
def test_file_is_refused_with_what_to_give(read, tmp_path):
    (tmp_path / "model.pt").write_text("")
    with pytest.raises(ValueError, match="is a file; give the folder that holds it"):
        read(tmp_path / "model.pt")


@pytest.mark.parametrize("read", [source_files, lambda source: local_folder(source, ["*"])])
def test_without_a_network_it_is_one_message_at_once(read, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(ValueError, match="'org/absent' is no folder here, and no Hub repository"):
        read("org/absent")
    assert time.monotonic() - start < 5
