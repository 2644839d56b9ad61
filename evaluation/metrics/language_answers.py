"""A model's answers to the language evaluation, each kept as soon as it is known: an interrupted run goes on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from instructvla.evaluation.ledger import Ledger
from instructvla.evaluation.metrics.language_samples import LanguageSample, Task
from instructvla.training.greedy_answers import greedy_answers

BENCHMARK = "language"
# The authors let prompt and answer together have 350 tokens, of which the picture takes 256 and the words around it
# most of the rest.
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Answer:
    """What the model said to a sample."""

    task: Task
    sample: str
    question: str
    reference: str
    answer: str

    @property
    def key(self) -> tuple[str, str]:
        """By which two models' answers to one sample belong together."""
        return self.task, self.sample

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
    given = {"benchmark": BENCHMARK, **settings, "max_new_tokens": max_new_tokens}
    ledger = Ledger.open(folder, given, Answer)
    waiting = [sample for sample in samples if (sample.task, sample.key) not in ledger.outcomes]
    with tqdm(total=len(samples), initial=len(samples) - len(waiting), unit="answer", disable=None) as bar:
        for answer in _answers(model, waiting, batch_size, max_new_tokens):
            ledger.add(answer)
            bar.update()
    return [ledger.outcomes[sample.task, sample.key] for sample in samples]


def _answers(model: Any, samples: Sequence[LanguageSample], batch_size: int, max_new_tokens: int) -> Iterator[Answer]:
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        images = [image for sample in batch for image in sample.images()]
        conversations = [sample.messages for sample in batch]
        said = greedy_answers(model, model.processor, conversations, images, max_new_tokens)
        for sample, answer in zip(batch, said, strict=True):
            yield Answer(sample.task, sample.key, sample.question, sample.reference, answer)
