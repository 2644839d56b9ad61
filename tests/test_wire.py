"""Claims about messages through a pipe."""

import os
import threading

import numpy as np
import pytest

from instructvla.evaluation.simulators.wire import WireClosedError, receive, send


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as source, os.fdopen(writing, "wb") as sink:
        yield source, sink


def test_pictures_larger_than_the_pipe_come_whole(pipe):
    source, sink = pipe
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    threading.Thread(target=send, args=(sink, {"picture": picture, "n": 3})).start()
    message = receive(source, within_s=20)
    assert message["n"] == 3
    np.testing.assert_array_equal(message["picture"], picture)


def test_nothing_is_waited_for_longer_than_allowed(pipe):
    source, sink = pipe
    with pytest.raises(TimeoutError):
        receive(source, within_s=0.05)
    sink.write(b"\x05\x00\x00")  # a message that never ends
    sink.flush()
    with pytest.raises(TimeoutError):
        receive(source, within_s=0.05)


def test_a_closed_wire_is_told_to_both_sides(pipe):
    source, sink = pipe
    sink.close()
    with pytest.raises(WireClosedError):
        receive(source)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as stream, pytest.raises(WireClosedError):
        send(stream, {"step": 1})
