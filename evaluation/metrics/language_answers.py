"""A model's answers to the language evaluation, each kept as soon as it is known, so that an interrupted run goes on.

A run's folder holds `settings.json`, what the answers follow from, and `answers.jsonl`, one answer per line.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from instructvla.evaluation.metrics.language_samples import LanguageSample, Task
from instructvla.training.greedy_answers import greedy_answers

SETTINGS, ANSWERS = "settings.json", "answers.jsonl"
LABELS = ("model", "data")  # settings that only say what something is called
# The authors let prompt and answer together have 350 tokens, of which the picture takes 256 and the words around it
# most of the rest.
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Answer:
    """What the model said to a sample."""

    task: Task
    key: str
    question: str
    reference: str
    answer: str

    def record(self) -> dict[str, str]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, str]) -> Self:
        return cls(**{**record, "task": Task(record["task"])})


def kept_answers(
    model: Any,
    samples: Sequence[LanguageSample],
    folder: Path,
    settings: Mapping[str, Any],
    batch_size: int = 16,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Answer]:
    """Greedy answers in the order of `samples`; what the folder already has isn't asked again.

    Args:
        model: `InstructVLAForConditionalGeneration` in evaluation mode, with its processor.
        samples: to be asked.
        folder: new, or one of an earlier run with the same settings.
        settings: what answers follow from beside the samples, as JSON.
        batch_size: samples asked at once.
        max_new_tokens: of an answer.

    Raises:
        ValueError: if the folder has answers of other settings or holds something else, or a picture can't be read.
    """
    done = {(one.task, one.key): one for one in open_answers(folder, {**settings, "max_new_tokens": max_new_tokens})}
    waiting = [sample for sample in samples if (sample.task, sample.key) not in done]
    with (
        (folder / ANSWERS).open("a", encoding="utf-8") as file,
        tqdm(total=len(samples), initial=len(samples) - len(waiting), unit="answer", disable=None) as bar,
    ):
        for answer in _answers(model, waiting, batch_size, max_new_tokens):
            file.write(json.dumps(answer.record(), ensure_ascii=False) + "\n")
            file.flush()
            done[answer.task, answer.key] = answer
            bar.update()
    return [done[sample.task, sample.key] for sample in samples]


def open_answers(folder: Path, settings: Mapping[str, Any]) -> list[Answer]:
    """What a folder already has; a new folder gets its settings.

    Raises:
        ValueError: if it has answers of other settings, holds something else, or has a line that is no answer.
    """
    place = folder / SETTINGS
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"{folder} holds something else; give a new folder for the answers.")
        place.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    saved = json.loads(place.read_text(encoding="utf-8"))
    names = [name for name in {**saved, **settings} if name not in LABELS and saved.get(name) != settings.get(name)]
    if names:
        differences = "; ".join(f"{name} was {saved.get(name)!r}, is {settings.get(name)!r}" for name in names)
        raise ValueError(f"{folder} has answers of other settings: {differences}. Give another folder.")
    return _read_answers(folder / ANSWERS)


def _read_answers(file: Path) -> list[Answer]:
    """All whole lines; a last one that an interruption left half-written is cut off."""
    content = file.read_bytes() if file.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("r+b") as stream:
            stream.truncate(whole)
    answers = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            answers.append(Answer.of_record(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file}, line {number} is no answer ({error}); delete that line.") from error
    return answers


def _answers(model: Any, samples: Sequence[LanguageSample], batch_size: int, max_new_tokens: int) -> Iterator[Answer]:
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        images = [image for sample in batch for image in sample.images()]
        conversations = [sample.messages for sample in batch]
        said = greedy_answers(model, model.processor, conversations, images, max_new_tokens)
        for sample, answer in zip(batch, said, strict=True):
            yield Answer(sample.task, sample.key, sample.question, sample.reference, answer)
