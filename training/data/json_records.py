"""Records of one large JSON file of the form {outer key: {inner key: {…}}}, found one by one in bounded memory."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Never

CHUNK = 1 << 20  # bytes per read
LARGEST_RECORD = 64 << 20  # characters; beyond, the file is taken for malformed rather than read to its end


class RecordPlace(NamedTuple):
    """Keys of a record, and where its JSON object lies in the file, in bytes."""

    outer: str
    inner: str
    offset: int
    length: int


def scan_records(path: Path, layout: str) -> Iterator[RecordPlace]:
    """All records in the file's order; only one of them is in memory at a time.

    Args:
        layout: of the file, in words, for messages.

    Raises:
        ValueError: naming the file and the byte where it stops being such JSON.
    """
    with path.open("rb") as file:
        scanner = JsonScanner(file, path, layout)
        for outer in scanner.members():
            for inner in scanner.members():
                offset = scanner.peek_byte("{")
                scanner.value()
                yield RecordPlace(outer, inner, offset, scanner.byte - offset)
        if scanner.peek():
            scanner.fail("something follows its last bracket")


class JsonScanner:
    """A place in a JSON text that is read piece by piece; `byte` is that place in the file."""

    def __init__(self, file: BinaryIO, path: Path, layout: str):
        self.file, self.path, self.layout = file, path, layout
        self.decoder, self.utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.byte = "", 0, 0

    def members(self) -> Iterator[str]:
        """Keys of the object that starts here; the caller consumes each key's value before it asks for the next."""
        self.take("{")
        while self.peek() != "}":
            self.peek_byte('"')
            key = self.value()
            self.take(":")
            yield key
            if self.peek() != "}":
                self.take(",")
                self.peek_byte('"')
        self.take("}")

    def value(self) -> Any:
        """The value that starts here, decoded and consumed."""
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                byte = self.byte + self.bytes_to(error.pos)
                if len(self.text) - self.at > LARGEST_RECORD or not self.read_more():
                    self.fail(error.msg, byte)
            else:
                self.move_to(end)
                return value

    def take(self, wanted: str) -> None:
        self.peek_byte(wanted)
        self.move_to(self.at + 1)

    def peek_byte(self, wanted: str) -> int:
        """The byte where the next character is, which must be the wanted one."""
        if (found := self.peek()) != wanted:
            self.fail(f"expected {wanted} but found {found or 'the end of the file'}")
        return self.byte

    def peek(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            place = self.at
            while place < len(self.text) and self.text[place] in " \t\r\n":
                place += 1
            self.move_to(place)
            if place < len(self.text):
                return self.text[place]
            if not self.read_more():
                return ""

    def move_to(self, place: int) -> None:
        self.byte += self.bytes_to(place)
        self.at = place

    def bytes_to(self, place: int) -> int:
        passed = self.text[self.at : place]
        return len(passed) if passed.isascii() else len(passed.encode())

    def read_more(self) -> bool:
        """False at the end of the file. What is waiting at least doubles, so that a long value is tried a few times."""
        waiting = self.text[self.at :]
        chunk = self.file.read(max(CHUNK, len(waiting)))
        try:
            self.text, self.at = waiting + self.utf8.decode(chunk, final=not chunk), 0
        except UnicodeDecodeError as error:
            self.fail(f"not UTF-8 text: {error.reason}")
        return bool(chunk)

    def fail(self, reason: str, byte: int | None = None) -> Never:
        byte = self.byte if byte is None else byte
        raise ValueError(
            f"{self.path}: byte {byte}: {reason}. The file must be JSON of the form {self.layout}; if it was "
            "downloaded, it may be cut off: download it again."
        ) from None
