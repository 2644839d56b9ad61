"""One training run at a time in an output folder: a lock of the operating system, which ends with its process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers.utils import logging

LOCK = ".running"
logger = logging.get_logger(__name__)


@contextmanager
def only_run(output_dir: Path) -> Iterator[None]:
    """Keep other runs out of the folder within the block.

    Raises:
        ValueError: another run writes into it, or it can't be made.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        file = (output_dir / LOCK).open("a", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"output_dir {output_dir} can't be written: {error}. Give another one.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another run writes into {output_dir}; wait until it ends, or give another output_dir."
            ) from error
        except OSError as error:  # a file system without locks
            logger.warning("%s can't be locked (%s): take care that no other run writes into it", output_dir, error)
        try:
            yield
        finally:
            (output_dir / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # unless it holds something
                output_dir.rmdir()
