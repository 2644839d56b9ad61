"""Multimodal chat in the JSON of Bunny and LLaVA, read record by record without holding the file."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from instructvla.processing.chat_prompts import control_tokens
from instructvla.processing.image_transforms import to_rgb
from instructvla.training.data.encoded_pictures import open_picture
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.json_records import JsonScanner
from instructvla.training.data.samples import ChatSample

ROLES = {"human": "user", "gpt": "assistant"}
PLACEHOLDER = "<image>"
# Alone, `<img>` is no image, and texts about HTML are full of it.
HARMLESS_TOKENS = {"<img>", "</img>"}
LAYOUT = "[{id, image, conversations: [{from, value}]}]"
BYTE_ORDER_MARK = "\ufeff"


class BadRecordError(BadEpisodeError):
    """A record of a chat file that can't be used: the message names the file, the record and the remedy."""


class ChatRecords:
    """The records of one chat file as conversations, by number; the file is a JSON array or JSON Lines.

    A record is `{"id", "image": a path, a list of them or absent, "conversations": [{"from": "human" | "gpt",
    "value": text}, …]}`; "human" and "gpt" take turns, and each picture has its `<image>` in the text of a "human". A
    record with one picture may also have "regions": [{"point": [u, v], "word": text}, …], what its patches show.
    Opening reads the file once, in pieces, and keeps eight bytes per record; a record and its pictures are read when
    they are asked for, and no file stays open.

    Args:
        path: of the chat file.
        image_folder: that the records' image paths start from; default: the folder "images" beside the file.
        skip: numbers of records to leave out, such as those of `bad_records`.

    Attributes:
        fingerprint: of the file's content and of what is left out.

    Raises:
        ValueError: no such file, content that is no list of JSON objects, or nothing left to read.
    """

    def __init__(self, path: str | Path, image_folder: str | Path | None = None, skip: Iterable[int] = ()):
        self.path = Path(path)
        self.image_folder = Path(image_folder) if image_folder is not None else self.path.parent / "images"
        spans, content = _index(self.path)
        skipped = sorted({int(number) for number in skip})
        outside = [number for number in skipped if not 0 <= number < len(spans)]
        if outside:
            raise ValueError(f"skip holds {outside[0]}; {self.path} has the records 0 to {len(spans) - 1}")
        self._numbers = np.delete(np.arange(len(spans)), skipped)
        self._spans = spans
        if len(self._numbers) == 0:
            raise ValueError(f"{self.path} has no record to read; {len(skipped)} are left out")
        self.fingerprint = hashlib.blake2b(f"{content} {skipped}".encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> ChatSample:
        """
        Raises:
            BadRecordError: a malformed record, or a picture that is missing or can't be decoded.
        """
        record, number = self._record(index)
        source = f"{self.path}, record {number} (id {record.get('id')!r})"
        try:
            messages, paths = _conversation(record)
            regions = _regions(record, paths)
            images = tuple(self._picture(path) for path in paths)
        except ValueError as error:
            raise BadRecordError(f"{source}: {error}. Correct the record, or skip bad ones") from error
        return ChatSample(messages, images, source, regions=regions)

    def bad_records(self) -> Iterator[tuple[int, str]]:
        """Number and fault of each record that can't be used, after reading them all, pictures included."""
        for index, number in enumerate(self._numbers.tolist()):
            try:
                self[index]
            except BadRecordError as error:
                yield number, str(error)

    def picture_files(self, index: int) -> list[Path]:
        """Where the pictures of a record should be; none of a record whose "image" is malformed.

        Raises:
            BadRecordError: the file changed since it was opened.
        """
        paths = self._record(index)[0].get("image")
        paths = paths if isinstance(paths, list) else [paths]
        return [self.image_folder / path for path in paths if isinstance(path, str) and path]

    def _record(self, index: int) -> tuple[dict[str, Any], int]:
        """A record and its number in the file."""
        number = int(self._numbers[index])
        start, stop = self._spans[number].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            text = file.read(stop - start)
        try:
            return json.loads(text), number
        except ValueError as error:
            raise BadRecordError(f"{self.path}, record {number}: the file changed since it was opened") from error

    def _picture(self, path: str) -> Image.Image:
        file = self.image_folder / path
        if not file.is_file():
            raise ValueError(f"there is no image {file}")
        name = f"the image {file}"
        try:
            return to_rgb(open_picture(file.read_bytes(), name), name)
        except OSError as error:
            raise ValueError(f"{name} can't be read: {error}") from error


def _conversation(record: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Messages, and the paths of their pictures in reading order (else ValueError)."""
    paths = record.get("image")
    paths = [] if paths is None else paths if isinstance(paths, list) else [paths]
    if not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"'image' must be a path or a list of them, got {record['image']!r}")
    turns = record.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2 or len(turns) % 2:
        raise ValueError("'conversations' must be a list of questions, each with its answer")
    messages = [_message(turn, index) for index, turn in enumerate(turns)]
    placeholders = sum(part["type"] == "image" for message in messages[::2] for part in message["content"])
    if placeholders != len(paths):
        raise ValueError(f"the questions hold {placeholders} {PLACEHOLDER}, but there are {len(paths)} images")
    return messages, paths


def _regions(record: dict[str, Any], paths: list[str]) -> tuple[tuple[float, float, str], ...]:
    """(u, v, word) of each region (else ValueError)."""
    regions = record.get("regions", [])
    if regions and len(paths) != 1:
        raise ValueError(f"'regions' belong to one picture, but there are {len(paths)}")
    try:
        found = tuple((float(region["point"][0]), float(region["point"][1]), region["word"]) for region in regions)
        if all(0 <= u <= 1 and 0 <= v <= 1 and isinstance(word, str) and word.strip() for u, v, word in found):
            return found
    except (KeyError, TypeError, IndexError, ValueError):
        pass  # said below
    raise ValueError("'regions' must be a list of {'point': [u, v], each 0 to 1, 'word': text}")


def _message(turn: Any, index: int) -> dict[str, Any]:
    role = "gpt" if index % 2 else "human"
    if not isinstance(turn, dict) or turn.get("from") != role or not isinstance(turn.get("value"), str):
        raise ValueError(f"turn {index} must be {{'from': {role!r}, 'value': text}}, got {str(turn)[:200]}")
    text = turn["value"]
    text.encode()  # half a character (a lone surrogate) can be written in JSON, but not tokenised
    if control := [token for token in control_tokens(text) if token not in HARMLESS_TOKENS]:
        raise ValueError(f"turn {index} holds control tokens: {control}")
    if role == "gpt":
        if not text.strip():
            raise ValueError(f"turn {index} is an empty answer")
        return {"role": ROLES[role], "content": text}
    images = [{"type": "image"}] * text.count(PLACEHOLDER)
    if images:
        text = re.sub(rf"\n?{PLACEHOLDER}\n?", "", text).strip()
    return {"role": ROLES[role], "content": [*images, {"type": "text", "text": text}]}


def _index(path: Path) -> tuple[np.ndarray, str]:
    """First and last byte (exclusive) of each record, (records, 2) int64, and a digest of the content."""
    if not path.is_file():
        raise ValueError(f"there is no chat file {path}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
        file.seek(0)
        spans = np.fromiter(_spans(JsonScanner(file, path, LAYOUT)), np.dtype((np.int64, 2)))
    return spans, digest


def _spans(scanner: JsonScanner) -> Iterator[tuple[int, int]]:
    """Where the objects of an array, or of JSON Lines, begin and end."""
    number = 0
    try:
        if scanner.peek() == BYTE_ORDER_MARK:
            scanner.take(BYTE_ORDER_MARK)
        in_array = scanner.peek() == "["
        if in_array:
            scanner.take("[")
        while scanner.peek() not in ("", "]"):
            if in_array and number:
                scanner.take(",")
            start = scanner.peek_byte("{")
            scanner.value()
            yield start, scanner.byte
            number += 1
        if in_array:
            scanner.take("]")
        if scanner.peek():
            scanner.fail("something follows the last record")
    except ValueError as error:
        raise ValueError(f"record {number} of {error}") from error
