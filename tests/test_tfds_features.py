"""Claims about features.json and the values that it describes."""

import json
import zlib

import numpy as np
import pytest

from instructvla.training.data.tf_example import parse_example
from instructvla.training.data.tfds_features import Feature, read_features
from tests.rlds_writer import BRIDGE, CLASSES, example, features_dict, image, sequence, tensor, text

SIX = np.arange(6)


def read(tmp_path, tree: dict) -> list[Feature]:
    path = tmp_path / "features.json"
    path.write_text(json.dumps(tree))
    return read_features(path)


def decode(tmp_path, feature: dict, record: dict):
    (leaf,) = read(tmp_path, features_dict(a=feature))
    return leaf.decode(parse_example(example(record)))


def encoded(array: np.ndarray, encoding: str) -> bytes:
    return zlib.compress(array.tobytes()) if encoding == "zlib" else array.tobytes()


def test_names_of_nested_features_are_joined(tmp_path):
    assert [feature.name for feature in read(tmp_path, BRIDGE)] == [
        "steps/observation/image_0",
        "steps/observation/state",
        "steps/action",
        "steps/language_instruction",
        "steps/is_first",
        "steps/is_last",
        "episode_metadata/file_path",
        "episode_metadata/episode_id",
    ]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64"])
def test_numbers_get_their_type_and_shape_back(tmp_path, dtype):
    values = (SIX > 2 if dtype == "bool" else SIX).astype(dtype)
    decoded = decode(tmp_path, sequence(tensor(dtype, 3)), {"a": values})
    assert decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, values.reshape(2, 3))


def test_large_unsigned_numbers_survive_signed_storage(tmp_path):
    values = np.uint64([2**64 - 1, 3])
    np.testing.assert_array_equal(decode(tmp_path, sequence(tensor("uint64")), {"a": values}), values)


def test_a_type_unknown_to_numpy_is_read_as_it_is_stored(tmp_path):
    assert decode(tmp_path, sequence(tensor("bfloat16")), {"a": [0.5, 1.5]}).dtype == np.float32


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "float64", "bool"])
def test_encoded_tensors_are_decoded(tmp_path, encoding, dtype):
    arrays = np.arange(24).reshape(2, 3, 4).astype(dtype)
    record = {"a": [encoded(array, encoding) for array in arrays]}
    decoded = decode(tmp_path, sequence(tensor(dtype, 3, 4, encoding=encoding)), record)
    np.testing.assert_array_equal(decoded, arrays)
    assert decoded.dtype == dtype


def test_encoded_tensors_of_different_lengths_are_a_list(tmp_path):
    arrays = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)]
    record = {"a": [encoded(array, "zlib") for array in arrays]}
    decoded = decode(tmp_path, sequence(tensor("float32", None, 3, encoding="zlib")), record)
    assert [array.shape for array in decoded] == [(2, 3), (1, 3)]


def test_encoded_tensors_of_several_unknown_lengths_bring_their_shapes(tmp_path):
    arrays = [SIX.reshape(2, 3).astype(np.int32), SIX.reshape(3, 2).astype(np.int32)]
    record = {"a/value": [encoded(array, "bytes") for array in arrays], "a/shape": [[2, 3], [3, 2]]}
    decoded = decode(tmp_path, sequence(tensor("int32", None, None, encoding="bytes")), record)
    assert [array.tolist() for array in decoded] == [array.tolist() for array in arrays]


@pytest.mark.parametrize(
    "feature, values, expected",
    [
        (tensor("int32"), [3], 3),
        (tensor("bool"), [1], True),
        (tensor("string"), [b"go"], "go"),
        (text(), ["schön".encode()], "schön"),
        (image(), [b"\xff\xd8"], b"\xff\xd8"),
        ({"classLabel": {"numClasses": "3"}}, [2], 2),
    ],
)
def test_a_single_value_is_no_array(tmp_path, feature, values, expected):
    decoded = decode(tmp_path, feature, {"a": values})
    assert decoded == expected and type(decoded) is type(expected)


def test_a_single_tensor_of_unknown_length_is_an_array(tmp_path):
    assert decode(tmp_path, tensor("int32", None, 2), {"a": SIX}).shape == (3, 2)


def test_a_tensor_of_strings_that_are_no_text_stays_bytes(tmp_path):
    assert decode(tmp_path, sequence(tensor("string")), {"a": [b"\xff\xd8", b"a"]}) == [b"\xff\xd8", b"a"]


def test_a_tensor_of_several_strings_keeps_its_shape(tmp_path):
    assert decode(tmp_path, sequence(tensor("string", 2)), {"a": list("abcd")}).tolist() == [["a", "b"], ["c", "d"]]


def test_a_video_is_a_sequence_of_pictures(tmp_path):
    assert decode(tmp_path, {"video": {"encodingFormat": "png"}}, {"a": [b"x", b"y"]}) == [b"x", b"y"]


def test_a_translation_has_a_text_for_each_language(tmp_path):
    features = read(tmp_path, features_dict(a={"translation": {"languages": ["en", "de"]}}))
    assert [(feature.name, feature.kind) for feature in features] == [("a/en", "text"), ("a/de", "text")]


def test_rows_of_one_length_are_an_array(tmp_path):
    record = {"a/ragged_flat_values": SIX, "a/ragged_row_lengths_0": [3, 3]}
    assert decode(tmp_path, sequence(sequence(tensor("int32"))), record).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_rows_of_different_lengths_are_lists(tmp_path):
    record = {"a/ragged_flat_values": list("abc"), "a/ragged_row_lengths_0": [2, 0, 1]}
    assert decode(tmp_path, sequence(sequence(text())), record) == [["a", "b"], [], ["c"]]


def test_rows_nest_to_any_depth(tmp_path):
    record = {"a/ragged_flat_values": SIX[:4], "a/ragged_row_lengths_0": [2, 1], "a/ragged_row_lengths_1": [1, 0, 3]}
    decoded = decode(tmp_path, sequence(sequence(sequence(tensor("int32")))), record)
    assert [[row.tolist() for row in rows] for rows in decoded] == [[[0], []], [[1, 2, 3]]]


def test_an_optional_value_may_be_missing(tmp_path):
    assert decode(tmp_path, tensor("int32", optional=True), {}) is None
    assert decode(tmp_path, tensor("int32", optional=True), {"a": [3]}) == 3


@pytest.mark.parametrize(
    "feature, record, problem",
    [
        (tensor("int32"), {}, "lacks 'a'"),
        (tensor("int32"), {"a": [1, 2]}, "2 values, not 1"),
        (tensor("int32"), {"a": [1.5]}, "holds float32 numbers, not int32"),
        (tensor("float32"), {"a": [b"x"]}, "byte strings"),
        (text(), {"a": [1]}, "int64 numbers"),
        (text(), {"a": [b"\xff"]}, "decode"),
        (sequence(tensor("float32", 4)), {"a": SIX * 0.5}, "reshape"),
        (tensor("uint8", 2, encoding="zlib"), {"a": [b"no zlib"]}, "decompress"),
        (sequence(sequence(text())), {"a/ragged_flat_values": ["x"], "a/ragged_row_lengths_0": [2]}, "count 2 values"),
    ],
)
def test_values_that_differ_from_features_json_are_refused_by_name(tmp_path, feature, record, problem):
    with pytest.raises(ValueError, match=f"'a'.*{problem}|{problem}.*'a'"):
        decode(tmp_path, feature, record)


@pytest.mark.parametrize(
    "feature, problem",
    [
        ({"pythonClassName": f"{CLASSES}.audio_feature.Audio", "audio": {}}, "'steps/a' is a .*Audio; readable are"),
        (tensor("complex64"), "'steps/a' has dtype 'complex64'; readable are"),
        (tensor("bfloat16", 2, encoding="bytes"), "'steps/a' has dtype 'bfloat16'"),
        (tensor("int8", encoding="gzip"), "'steps/a' has encoding 'gzip'; readable are none, bytes, zlib"),
        (tensor("int8", None), "'steps/a' has several unknown lengths"),
        ({"tensor": {}}, "'dtype'"),
    ],
)
def test_features_that_cannot_be_read_are_refused_by_name(tmp_path, feature, problem):
    with pytest.raises(ValueError, match=f"features.json.*{problem}"):
        read(tmp_path, features_dict(steps=sequence(features_dict(a=feature))))


@pytest.mark.parametrize(
    "content, problem", [("{", "is not JSON"), ("[]", "no `featuresDict`"), ('{"type": "x"}', "4.5")]
)
def test_another_file_is_refused(tmp_path, content, problem):
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_features(tmp_path / "features.json")
