"""Claims about `tf.train.Example` messages."""

import numpy as np
import pytest

from instructvla.training.data.tf_example import parse_example
from tests.rlds_writer import example, field, varint


def test_every_kind_of_list_is_read():
    parsed = parse_example(example({"action": [0.5, -2.0], "step": [1, -(2**40)], "image": [b"\xff\xd8", b""]}))
    assert parsed["image"] == [b"\xff\xd8", b""]
    for name, values in (("action", np.float32([0.5, -2.0])), ("step", np.int64([1, -(2**40)]))):
        assert parsed[name].dtype == values.dtype
        np.testing.assert_array_equal(parsed[name], values)


def test_a_message_that_tensorflow_wrote_is_read():
    """The bytes of TensorFlow 2.21's Example with one Int64List."""
    data = bytes.fromhex("0a160a140a0161120f1a0d0a0b01feffffffffffffffff01")
    assert parse_example(data)["a"].tolist() == [1, -2]


def test_numbers_may_be_stored_one_by_one():
    """The other encoding of repeated numbers that the format allows: a tag before each."""
    one_by_one = field(3, b"".join(varint(1 << 3) + varint(number) for number in (7, 300)))
    data = field(1, field(1, field(1, b"step") + field(2, one_by_one)))
    assert parse_example(data)["step"].tolist() == [7, 300]


def test_a_feature_without_values_is_empty():
    assert parse_example(field(1, field(1, field(1, b"a") + field(2, b"")))) == {"a": []}
    assert parse_example(b"") == {}


def test_another_message_is_refused():
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        parse_example(b"\x0a\xff something else")
