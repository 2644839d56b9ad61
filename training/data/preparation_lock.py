"""One `instructvla prepare` at a time in a folder: a lock of the operating system, which ends with its process."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from transformers.utils import logging

from instructvla.training.data.preparation_journal import FOLDER

LOCK = "lock"
logger = logging.get_logger(__name__)


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Keep others from preparing into a folder within the block; no file of the lock stays, nor a folder made for it.

    Raises:
        ValueError: another process prepares into it.
    """
    is_new, path = not output.exists(), output / FOLDER / LOCK
    with locked_file(path, output):
        try:
            yield
        finally:
            path.unlink()
            for folder in (path.parent, output) if is_new else (path.parent,):
                with suppress(OSError):  # unless it holds something
                    folder.rmdir()


def locked_file(path: Path, output: Path) -> TextIO:
    """The open and locked file; one that its last owner removed before it was locked is opened anew."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a", encoding="utf-8")
        except FileNotFoundError:  # the folder was removed since
            continue
        lock(file, output)
        if is_at(path, file):
            return file
        file.close()


def is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file still has that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def lock(file: TextIO, output: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(
            f"Another `instructvla prepare` is writing to {output}. Wait for it to end, then run this one again, or "
            "give another --output."
        ) from error
    except OSError as error:  # some network file systems have no locks
        logger.warning(f"{output} can't be locked ({os.strerror(error.errno)}): let no other process prepare into it.")
