"""Claims about the lock of a preparation: one at a time in a folder, and nothing of it stays."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructvla.training.data import preparation_lock
from instructvla.training.data.preparation_journal import FOLDER
from instructvla.training.data.preparation_lock import LOCK, is_at, locked_file, only_one
from instructvla.training.data.prepare import prepare
from tests.memory_episodes import bridge_episodes

HOLDING = """
import sys, time
from pathlib import Path
from instructvla.training.data.preparation_lock import only_one
with only_one(Path(sys.argv[1])):
    time.sleep(60)
"""


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_preparation_is_refused_and_does_not_disturb_the_first(tmp_path):
    def prepare_again(episode):
        with pytest.raises(ValueError, match="Another `instructvla prepare` is writing to .*both.*another --output"):
            prepare(bridge_episodes(3), tmp_path / "both", split="val")
        return episode

    prepare(bridge_episodes(3), tmp_path / "both", transforms=[prepare_again])
    prepare(bridge_episodes(3), tmp_path / "alone")
    assert content(tmp_path / "both") == content(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"data", "manifest.json"}


def test_the_lock_of_a_killed_process_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path / "out")], cwd=Path(__file__).parents[1])
    lock = tmp_path / "out" / FOLDER / LOCK
    try:
        while not lock.exists():
            assert child.poll() is None
            time.sleep(0.02)
        time.sleep(0.1)  # it locks the file after it made it
        with pytest.raises(ValueError, match="Another `instructvla prepare`"), only_one(tmp_path / "out"):
            pass
    finally:
        child.kill()
        child.wait()
    assert lock.exists()
    prepare(bridge_episodes(1), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "manifest.json"}


def test_a_folder_that_was_made_for_the_lock_goes_with_it_and_another_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(RuntimeError), only_one(tmp_path / name):
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not list((tmp_path / "empty").iterdir())


def test_a_file_that_its_owner_removed_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """The owner ends after this process opened its file, and before it locked it."""
    path, locked = tmp_path / FOLDER / LOCK, []

    def lock(file, output):
        if not locked:
            path.unlink()
        locked.append(file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(preparation_lock, "lock", lock)
    with locked_file(path, tmp_path) as file:
        assert len(locked) == 2 and is_at(path, file)


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(38, os.strerror(38))

    told = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(preparation_lock.logger, "warning", told.append)
    prepare(bridge_episodes(1), tmp_path / "out")
    assert len(told) == 1 and "can't be locked (Function not implemented)" in told[0]
