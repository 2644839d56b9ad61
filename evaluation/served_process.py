"""A policy server in a process of its own, for as long as it is needed."""

import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LOADING_S = 900
STOPPING_S = 40


@contextmanager
def served(target: str, options: Sequence[str] = ()) -> Iterator[str]:
    """The URL of a server: `target` itself, or that of a process which serves the model `target` meanwhile.

    Args:
        target: ws://HOST:PORT, or what `instructvla serve` takes.
        options: of `instructvla serve`.

    Raises:
        ValueError: the model can't be served.
    """
    if target.startswith(("ws://", "wss://")):
        yield target
        return
    command = [sys.executable, "-m", "instructvla.evaluation.serve", target, "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield _announced_url(process, target)
    finally:
        process.terminate()
        try:
            process.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _announced_url(process: subprocess.Popen, target: str) -> str:
    give_up = time.monotonic() + LOADING_S
    while time.monotonic() < give_up:
        if select.select([process.stdout], [], [], 1.0)[0]:
            line = process.stdout.readline()
            if not line:
                raise ValueError(f"{target} can't be served; the server's own error stands above")
            if " at ws://" in line:
                return line.split()[-1]
    raise ValueError(f"{target} was not served within {LOADING_S} s")
