"""What the language evaluation asks: the validation split of VLA-IT as it is released, or conversations of a chat file.

The released folder (`REPOSITORY` on the Hub, its zip file unpacked) holds

    language_evaluation_with_gt.json    [{"hashkey": text, "annotation": {"Caption", "QA", "CR", "CC"}}, …]
    language_evaluation/                images/HASHKEY_first_frame.jpg, or the pictures themselves

with annotations as in `vla_it`. As the authors do, each picture is asked for a caption, its first question (QA), and
its first created context (CC) as it stands, without the words around an instruction that make the robot act.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from PIL import Image

from instructvla.processing.image_transforms import to_rgb
from instructvla.training.data.chat_json import ChatRecords
from instructvla.training.data.encoded_pictures import open_picture
from instructvla.training.data.vla_it import Record

REPOSITORY = "ShuaiYang03/InstructVLA_embodied_mm_evaluation_assets"  # the authors' data set
RELEASED = "language_evaluation_with_gt.json"
PICTURES = ("language_evaluation/images", "language_evaluation")
CHAT = "chat.json"
CAPTION_PROMPT = "Describe what’s on the table. Don’t mention the robot arm."  # the authors'


class Task(StrEnum):
    """Of a sample, in the order of the paper's Tables 3 to 5."""

    CAPTION = "captioning"
    QUESTION = "question answering"
    INSTRUCTION = "instruction response"


@dataclass(frozen=True)
class LanguageSample:
    """A question with its right answer.

    Args:
        task: what is asked for.
        key: tells it from the task's other samples.
        messages: as `processor.apply_chat_template` takes them, the last one of the user.
        pictures: files that the messages show, in their order.
        reference: the right answer.
    """

    task: Task
    key: str
    messages: Sequence[dict[str, Any]]
    pictures: tuple[Path, ...]
    reference: str

    @property
    def question(self) -> str:
        """Its last message, without pictures."""
        content = self.messages[-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    def images(self) -> list[Image.Image]:
        """The pictures, RGB.

        Raises:
            ValueError: one that can't be read.
        """
        found = []
        for file in self.pictures:
            try:
                found.append(to_rgb(open_picture(file.read_bytes(), str(file)), str(file)))
            except OSError as error:
                raise ValueError(f"the picture {file} can't be read: {error}") from error
        return found


@dataclass(frozen=True)
class LanguageData:
    """Samples, and where they are from.

    Args:
        file: that they are in.
        samples: in the file's order.
        is_vla_it: whether the layout is VLA-IT's, not that of chats.
        is_whole: whether nothing was left out.
    """

    file: Path
    samples: tuple[LanguageSample, ...]
    is_vla_it: bool
    is_whole: bool


def language_data(place: Path, limit: int | None = None) -> LanguageData:
    """The samples of a file in either layout, or of the folder that holds one by its usual name.

    Args:
        place: `language_evaluation_with_gt.json`, a chat file as `ChatRecords` reads it, or a folder of either.
        limit: how many pictures (VLA-IT) or conversations to take from the file's beginning; default: all.

    Raises:
        ValueError: nothing there, a malformed record, a key twice, a picture that is missing, or a task with fewer than
            the two samples that its scores need.
    """
    file = _file_of(place)
    is_vla_it = _is_vla_it(file)
    found = list(_vla_it_samples(file, limit) if is_vla_it else _chat_samples(file, limit))
    known: set[tuple[str, str]] = set()
    for sample in found:
        if (sample.task, sample.key) in known:
            raise ValueError(f"{file}: {sample.key} comes twice; leave one of them out.")
        known.add((sample.task, sample.key))
    counts = {task: sum(sample.task is task for sample in found) for task in Task}
    if few := [task for task, count in counts.items() if count == 1]:
        raise ValueError(f"{file} gives a single sample of {few[0]}, but scores need two or more; take more of it.")
    if not found:
        raise ValueError(f"{file} holds nothing to ask.")
    return LanguageData(file, tuple(found), is_vla_it, is_whole=limit is None)


def _file_of(place: Path) -> Path:
    if place.is_file():
        return place
    for name in (RELEASED, CHAT):
        if (place / name).is_file():
            return place / name
    raise ValueError(
        f"{place} is neither a file nor a folder with {RELEASED} or {CHAT}; the former is in the data set "
        f"{REPOSITORY}: instructvla download vla-it --repo {REPOSITORY} --part '*' --output FOLDER"
    )


def _is_vla_it(file: Path) -> bool:
    with file.open("rb") as content:
        return b'"hashkey"' in content.read(1 << 16)  # inside a text its quotes would be escaped


def _vla_it_samples(file: Path, limit: int | None) -> Iterator[LanguageSample]:
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
        keys = [record["hashkey"] for record in records]
        annotations = [record["annotation"] for record in records]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file} is no list of {{"hashkey": …, "annotation": …}}: {error!r}.') from error
    for key, given in list(zip(keys, annotations, strict=True))[:limit]:
        if not isinstance(key, str):
            raise ValueError(f"{file}: hashkey {key!r} must be a text.")
        annotation = Record(f"{file}, {key}", {"alt_instruction": given}).annotation()
        if annotation is None:
            raise ValueError(f"{file}: {key} has no annotation; leave it out.")
        picture = _first_frame(file.parent, key)
        if annotation.caption:
            yield _asked(Task.CAPTION, key, picture, CAPTION_PROMPT, annotation.caption)
        for task, turns in ((Task.QUESTION, annotation.questions), (Task.INSTRUCTION, annotation.contexts)):
            for turn in turns[:1]:
                yield _asked(task, key, picture, turn.question, turn.answer)


def _first_frame(folder: Path, key: str) -> Path:
    places = [folder / pictures / f"{key}_first_frame.jpg" for pictures in PICTURES]
    for place in places:
        if place.is_file():
            return place
    tried = " or ".join(map(str, places))
    raise ValueError(f"there is no picture {tried}; unpack language_evaluation.zip in {folder}.")


def _asked(task: Task, key: str, picture: Path, question: str, answer: str) -> LanguageSample:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    return LanguageSample(task, key, [message], (picture,), answer)


def _chat_samples(file: Path, limit: int | None) -> Iterator[LanguageSample]:
    """Every turn, after the earlier ones with their right answers."""
    records = ChatRecords(file)
    for number in range(len(records))[:limit]:
        messages, pictures = records[number].messages, records.picture_files(number)
        for turn in range(0, len(messages), 2):
            before = messages[: turn + 1]
            shown = sum(part["type"] == "image" for message in before[::2] for part in message["content"])
            answer = messages[turn + 1]["content"]
            key = f"record {number}, turn {turn // 2}"
            yield LanguageSample(Task.QUESTION, key, before, tuple(pictures[:shown]), answer)
