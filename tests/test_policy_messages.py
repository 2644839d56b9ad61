"""Claims about the messages between a policy server and its clients."""

import pickle

import msgpack
import numpy as np
import pytest

from instructvla.evaluation.policy_messages import MAX_CONTAINERS, PolicyError, pack, unpack


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float16", ">f8", "bool"])
def test_arrays_come_back_with_shape_type_and_values(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = unpack(pack({"images": {"primary": array}}))["images"]["primary"]
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_an_array_that_is_no_contiguous_block_comes_back_the_same():
    array = np.arange(12).reshape(3, 4)[::-1, ::2]
    assert np.array_equal(unpack(pack(array)), array)


def test_plain_values_and_numpy_scalars_come_back():
    message = {"text": "löffel", "number": 3, "real": 0.5, "flag": True, "nothing": None, "list": [1, [2]], "raw": b"x"}
    assert unpack(pack(message)) == message
    assert unpack(pack([np.float32(0.5), np.int64(3), np.bool_(True)])) == [0.5, 3, True]


def test_an_array_is_written_as_openpi_client_writes_it():
    assert msgpack.unpackb(pack(np.zeros((1, 2), np.uint8))) == {
        b"__ndarray__": True,
        b"data": b"\0\0",
        b"dtype": "|u1",
        b"shape": [1, 2],
    }


def test_a_numpy_text_arrives_as_a_text():
    scalar = {b"__npgeneric__": True, b"data": "put it down", b"dtype": "<U11"}
    assert unpack(msgpack.packb(scalar)) == "put it down"


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["a"]), np.array([1j]), object(), {1, 2}, 2**80])
def test_what_no_message_can_hold_is_refused_when_packing(value):
    with pytest.raises(ValueError, match="can't be sent"):
        pack({"value": value})


def array_map(**changes):
    fields = {"data": b"\0" * 8, "dtype": "<f4", "shape": [2]} | changes
    return msgpack.packb({b"__ndarray__": True} | {name.encode(): value for name, value in fields.items()})


BAD_MESSAGES = {
    "empty": b"",
    "cut off": pack(np.zeros(9))[:-3],
    "two messages": pack(1) + pack(2),
    "text that is not UTF-8": b"\xa2\xff\xfe",
    "a reserved byte": b"\xc1",
    "a pickle": pickle.dumps({"images": 1}),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "a timestamp": msgpack.packb(msgpack.Timestamp(1)),
    "nested too deep": b"\x91" * 5000,
    "a map with list keys": b"\x81\x90\x01",
    "an array of objects": array_map(dtype="|O"),
    "an array of records": array_map(dtype="<f4,<f4"),
    "an array of an odd type": array_map(dtype="<f3"),
    "a type that is no text": array_map(dtype=[["a", "<f4"]]),
    "a shape of more than the data": array_map(shape=[2**62, 2**62]),
    "a negative shape": array_map(shape=[-1, -2]),
    "a shape of reals": array_map(shape=[2.0]),
    "no shape": array_map(shape=None),
    "data that is no bytes": array_map(data="12345678"),
    "too many dimensions": array_map(shape=[2] + [1] * 40),
    "a scalar of a map": msgpack.packb({b"__npgeneric__": True, b"data": {}, b"dtype": "<f4"}),
    "a scalar out of range": msgpack.packb({b"__npgeneric__": True, b"data": 10**9, b"dtype": "|u1"}),
    "a memory bomb": b"\xdd" + (MAX_CONTAINERS + 1).to_bytes(4, "big") + b"\x80" * (MAX_CONTAINERS + 1),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_garbage_is_a_value_error(name):
    with pytest.raises(ValueError, match="not msgpack as openpi-client writes it: ."):
        unpack(BAD_MESSAGES[name])


def test_noise_is_a_value_error_or_a_harmless_value():
    generator = np.random.default_rng(0)
    for _ in range(500):
        try:
            unpack(generator.bytes(60))
        except ValueError:
            continue


def test_a_refusal_survives_its_text_frame():
    error = PolicyError.from_frame(str(PolicyError("busy", "8 wait: later")))
    assert (error.code, error.reason) == ("busy", "8 wait: later")


def test_another_servers_traceback_is_an_internal_error_with_all_its_text():
    error = PolicyError.from_frame("Traceback: …\nKeyError: 'images'")
    assert error.code == "internal error" and "KeyError" in error.reason
