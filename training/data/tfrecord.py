"""TFRecord files: framing, checksums and access by record number, without TensorFlow.

A record is an 8-byte little-endian length, the masked CRC32C of these bytes, the data and their masked CRC32C
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
"""

import os
import struct
from pathlib import Path

import google_crc32c
import numpy as np

from instructvla.training.data.episodes import BadEpisodeError

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_SIZE = _LENGTH.size + _CHECKSUM.size


def masked_crc32c(data: bytes) -> int:
    """The CRC32C of `data`, rotated and shifted as TFRecord files store it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class TFRecordFile:
    """One file's records by number.

    Opening reads only the headers: 12 bytes per record, 8 bytes of memory. A file that is damaged still opens: every
    record before the damage can be read, and the record with the damage raises when it is.

    Args:
        path: the file.

    Raises:
        OSError: the file can't be opened.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._offsets, self._damage = _scan(self.path)  # (intact + 1,): their starts, and where the last one ends

    @property
    def intact(self) -> int:
        """How many records come before the end of the file, or before the first damage to its framing."""
        return len(self._offsets) - 1

    def __len__(self) -> int:
        """Counts the record at which the framing is damaged, too: it is there, though it can't be read."""
        return self.intact + (self._damage is not None)

    def __getitem__(self, record: int) -> bytes:
        """The data of a record.

        Raises:
            BadEpisodeError: it is truncated, or a checksum is wrong.
            IndexError: there is no such record.
        """
        if not 0 <= record < len(self):
            raise IndexError(f"{self.path} holds {len(self)} records, there is no record {record}")
        if record == self.intact:
            raise self.lost(record)
        start, end = (int(offset) for offset in self._offsets[record : record + 2])
        with open(self.path, "rb", buffering=0) as file:
            file.seek(start)
            frame = file.read(end - start)
        data, checksum = frame[_HEADER_SIZE : -_CHECKSUM.size], frame[-_CHECKSUM.size :]
        if len(frame) < end - start:
            raise self.bad(record, "the file has become shorter since it was opened")
        if _CHECKSUM.unpack(checksum)[0] != masked_crc32c(data):
            raise self.bad(record, f"the checksum of its {len(data)} bytes is wrong")
        return data

    def bad(self, record: int, problem: str) -> BadEpisodeError:
        """The error that says what is wrong with `record`, and where it is."""
        place = f"record {record} at byte {self._offsets[min(record, self.intact)]}"
        return BadEpisodeError(f"{self.path}, {place}: {problem}; download this file again", str(self.path))

    def lost(self, record: int) -> BadEpisodeError:
        """The same for a record at which the file breaks off, or that it should hold behind that place."""
        place = f"the file breaks off at record {self.intact}, byte {self._offsets[-1]}"
        problem = self._damage or "it ends there, though more records are told of"
        return BadEpisodeError(
            f"{self.path}, record {record}: {place}: {problem}; download this file again", str(self.path)
        )


def _scan(path: Path) -> tuple[np.ndarray, str | None]:
    """Offsets of the intact records and the end of the last; what is wrong there, if that is not the file's end."""
    offsets, damage = [0], None
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while offsets[-1] < size and damage is None:
            file.seek(offsets[-1])
            header = file.read(_HEADER_SIZE)
            damage = _damage(header, size - offsets[-1])
            if damage is None:
                offsets.append(offsets[-1] + _frame_size(header))
    return np.array(offsets, np.int64), damage


def _frame_size(header: bytes) -> int:
    return _HEADER_SIZE + _LENGTH.unpack_from(header)[0] + _CHECKSUM.size


def _damage(header: bytes, available: int) -> str | None:
    """Why no record can start with `header` when `available` bytes are left in the file."""
    if len(header) < _HEADER_SIZE:
        return f"the file ends within its header, after {len(header)} bytes"
    if _CHECKSUM.unpack_from(header, _LENGTH.size)[0] != masked_crc32c(header[: _LENGTH.size]):
        return "the checksum of its length is wrong: the file is corrupted from here on, or is no TFRecord file"
    if _frame_size(header) > available:
        return f"it is truncated: it takes {_frame_size(header)} bytes, the file ends after {available}"
    return None
