"""Messages between a policy server and its clients: msgpack with numpy arrays as openpi-client writes them, no pickle.

An array is the map `{b"__ndarray__": True, b"data", b"dtype", b"shape"}`. Binary WebSocket frames hold such messages; a
text frame is a refusal, "code: reason". Needs neither torch nor transformers.
"""

import math
import re
from typing import Any

import msgpack
import numpy as np

ARRAY_KINDS = "biuf"
PLAIN_DTYPE = re.compile(r"[<>|=]?[biuf]\d{1,2}")
MAX_CONTAINERS = 4096  # an empty map is one byte on the wire and 64 in memory
MAX_DIMENSIONS = 8

REFUSAL_CODES = ("bad request", "busy", "deadline", "shutting down", "internal error", "connection")


class PolicyError(RuntimeError):
    """A request that got no actions, and why.

    Args:
        code: "bad request" (put the request right), "busy" or "shutting down" (try again later, or elsewhere),
            "deadline" (no answer in time), "internal error" (see the server's log), "connection" (it is lost).
        reason: one line for the user.
    """

    def __init__(self, code: str, reason: str):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason

    @classmethod
    def from_frame(cls, text: str) -> "PolicyError":
        """The refusal that a server sent as a text frame; other servers' texts become an "internal error"."""
        code, colon, reason = text.partition(": ")
        return cls(code, reason) if colon and code in REFUSAL_CODES else cls("internal error", text)


def pack(message: Any) -> bytes:
    """The message as msgpack.

    Args:
        message: maps, lists, texts, bytes, numbers, None, and numpy arrays and scalars of bools, integers and floats.

    Raises:
        ValueError: something else is in it.
    """
    try:
        return msgpack.packb(message, default=_array_as_map)
    except (TypeError, OverflowError) as error:
        raise ValueError(
            f"the message can't be sent: {error}. It may hold maps, lists, texts, bytes, numbers and numpy arrays"
        ) from error


def unpack(data: bytes) -> Any:
    """The message that `pack` or openpi-client made; arrays are read-only views of `data`.

    Raises:
        ValueError: it is cut off or no msgpack, or it holds what no such message has: objects, extension types, arrays
            whose shape does not fit their bytes, or more than MAX_CONTAINERS maps and lists.
    """
    decoder = _Decoder()
    try:
        return msgpack.unpackb(data, object_hook=decoder.map, list_hook=decoder.list, max_ext_len=0)
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"the message is not msgpack as openpi-client writes it: {reason}") from error


class _Decoder:
    """Counts maps and lists while they are made, so that a small message can't fill the memory."""

    def __init__(self) -> None:
        self.containers = 0

    def map(self, fields: dict) -> Any:
        self._count()
        if b"__ndarray__" in fields:
            return _array(fields)
        if b"__npgeneric__" in fields:
            return _scalar(fields)
        return fields

    def list(self, items: list) -> list:
        self._count()
        return items

    def _count(self) -> None:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise ValueError(f"it holds more than {MAX_CONTAINERS} maps and lists; send numbers as numpy arrays")


def _array_as_map(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in ARRAY_KINDS:
        raise TypeError(f"arrays of {value.dtype} are not sent")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} objects are not sent")


def _array(fields: dict) -> np.ndarray:
    data, shape, dtype = fields.get(b"data"), fields.get(b"shape"), _dtype(fields)
    if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"an array needs bytes as data and a shape of at most {MAX_DIMENSIONS} sizes")
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and type {dtype} can't have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(fields: dict) -> Any:
    value = fields.get(b"data")
    if isinstance(value, str):  # np.str_: a text like any other
        return value
    if not isinstance(value, bool | int | float):
        raise ValueError(f"a numpy scalar can't be made of {type(value).__name__} data")
    return _dtype(fields).type(value)


def _dtype(fields: dict) -> np.dtype:
    name = fields.get(b"dtype")
    if not isinstance(name, str) or not PLAIN_DTYPE.fullmatch(name):
        raise ValueError(f"arrays hold bools, integers or floats, not {str(name)[:40]!r}")
    return np.dtype(name)
