"""Claims about TFRecord files."""

import os
import pickle

import pytest

from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.tfrecord import TFRecordFile, masked_crc32c
from tests.rlds_writer import frame

RECORDS = [b"first", b"", b"third" * 1000]
SECOND = 16 + len(RECORDS[0])  # a record takes 16 bytes more than its data
THIRD = SECOND + 16


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(frame(record) for record in RECORDS))
    return path


def flip(path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def test_a_file_that_tensorflow_wrote_is_read(tmp_path):
    """The bytes that TensorFlow 2.21's TFRecordWriter writes for one record."""
    (tmp_path / "a").write_bytes(bytes.fromhex("0700000000000000bbd79f11657069736f646524438843"))
    file = TFRecordFile(tmp_path / "a")
    assert len(file) == 1 and file[0] == b"episode"


def test_the_checksum_is_the_masked_crc32c():
    """The check value of CRC-32C is 0xE3069283 (RFC 3720); TFRecord rotates it by 15 bits and adds a constant."""
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_records_are_read_in_any_order(path):
    file = TFRecordFile(path)
    assert len(file) == 3
    assert [file[record] for record in (2, 0, 1, 2)] == [RECORDS[record] for record in (2, 0, 1, 2)]
    assert pickle.loads(pickle.dumps(file))[2] == RECORDS[2]


@pytest.mark.parametrize("record", [-1, 3])
def test_a_record_beyond_the_last_is_an_index_error(path, record):
    with pytest.raises(IndexError, match=f"holds 3 records, there is no record {record}"):
        TFRecordFile(path)[record]


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "empty").touch()
    assert len(TFRecordFile(tmp_path / "empty")) == 0


@pytest.mark.parametrize("missing, problem", [(1, "it is truncated: it takes 5016 bytes"), (5010, "within its header")])
def test_a_truncated_file_keeps_what_comes_before_and_names_the_place(path, missing, problem):
    os.truncate(path, path.stat().st_size - missing)
    file = TFRecordFile(path)
    assert len(file) == 3 and file.intact == 2
    assert file[0] == RECORDS[0] and file[1] == RECORDS[1]
    with pytest.raises(BadEpisodeError, match=f"{path}, record 2: .* record 2, byte {THIRD}: .*{problem}.*; download"):
        file[2]


def test_corrupted_data_harm_only_their_record(path):
    flip(path, 12)
    file = TFRecordFile(path)
    assert [file[1], file[2]] == RECORDS[1:]
    with pytest.raises(BadEpisodeError, match=f"{path}, record 0 at byte 0: the checksum of its 5 bytes is wrong"):
        file[0]


def test_a_corrupted_length_ends_the_file_there(path):
    flip(path, SECOND)
    file = TFRecordFile(path)
    assert file[0] == RECORDS[0] and len(file) == 2
    with pytest.raises(BadEpisodeError, match=f"at record 1, byte {SECOND}: the checksum of its length is wrong"):
        file[1]


def test_another_kind_of_file_is_told(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"\x1f\x8b, something that is no TFRecord file")
    with pytest.raises(BadEpisodeError, match="is no TFRecord file"):
        TFRecordFile(path)[0]


def test_a_file_that_shrinks_while_open_is_told(path):
    file = TFRecordFile(path)
    os.truncate(path, THIRD + 100)
    with pytest.raises(BadEpisodeError, match="record 2 .* shorter since it was opened"):
        file[2]
