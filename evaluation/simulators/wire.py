"""Messages between the runner and a simulator's process: msgpack with numpy arrays, each after its length."""

import os
import selectors
import struct
import time
from typing import Any, BinaryIO

from instructvla.evaluation.policy_messages import pack, unpack

LENGTH = struct.Struct("<Q")


class WireClosedError(RuntimeError):
    """The other side is gone."""


def send(stream: BinaryIO, message: Any) -> None:
    """
    Raises:
        WireClosedError: nobody reads any more.
    """
    data = pack(message)
    try:
        stream.write(LENGTH.pack(len(data)) + data)
        stream.flush()
    except (BrokenPipeError, ValueError) as error:
        raise WireClosedError("nobody reads any more") from error


def receive(stream: BinaryIO, within_s: float | None = None) -> Any:
    """The next message.

    Args:
        stream: a pipe, unbuffered if `within_s` is given.
        within_s: longest time for all of it; None waits as long as it takes.

    Raises:
        TimeoutError: it did not come in time.
        WireClosedError: nobody writes any more.
    """
    deadline = None if within_s is None else time.monotonic() + within_s
    (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size, deadline))
    return unpack(_exactly(stream, length, deadline))


def _exactly(stream: BinaryIO, size: int, deadline: float | None) -> bytes:
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while len(received) < size:
            if deadline is not None and not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError("no whole message came in time")
            part = os.read(stream.fileno(), size - len(received))
            if not part:
                raise WireClosedError("nobody writes any more")
            received += part
    return bytes(received)
