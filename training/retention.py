"""What adaptation leaves of the VLM's own abilities: text loss and answers, with adapters against without.

With `adapters=False` the model is the base VLM, bit for bit, so the base needs no copy in memory.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Self

import numpy as np
import torch

from instructvla.processing import InstructVLAProcessor
from instructvla.training.answer_scores import exact_match, word_f1
from instructvla.training.collator import IGNORED, ActionCollator
from instructvla.training.data.chat_json import ChatRecords
from instructvla.training.data.samples import ChatSample
from instructvla.training.greedy_answers import greedy_answers
from instructvla.training.probing import batched_numbers, evaluating, rank_share, require_counts

PREFIX = "eval_retention/"
TEXT_LOSS, SCORE, EXACT = "text_loss", "vqa_score", "vqa_exact_match"
Reduce = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class RetentionSums:
    """Sums over held-out conversations; those of ranks can be added.

    Args:
        loss: cross-entropy of all labelled tokens.
        tokens: how many.
        f1, exact: of all answers, see `answer_scores`.
        answers: how many.
    """

    loss: float = 0.0
    tokens: float = 0.0
    f1: float = 0.0
    exact: float = 0.0
    answers: float = 0.0

    def to_tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(5,) float64, to be summed over ranks."""
        return torch.tensor(astuple(self), dtype=torch.float64, device=device)

    @classmethod
    def from_tensor(cls, sums: torch.Tensor) -> Self:
        return cls(*sums.tolist())

    def metrics(self) -> dict[str, float]:
        """`text_loss`, and where there are answers `vqa_score` (F1 of words) and `vqa_exact_match`.

        Raises:
            ValueError: no token was counted.
        """
        if not self.tokens:
            raise ValueError("the held-out conversations have no labelled token; raise max_length, or give others")
        answers = {SCORE: self.f1 / self.answers, EXACT: self.exact / self.answers} if self.answers else {}
        return {TEXT_LOSS: self.loss / self.tokens, **answers}


@dataclass(frozen=True)
class Question:
    """A picture's question: the record, how many of its messages come before the answer, and the answer's reference."""

    number: int
    messages: int
    reference: str


class RetentionProbe:
    """Fixed held-out conversations, picked once, that models are scored on with and without adapters.

    The text loss is per labelled token over all turns. Of the records with a picture, the turn with the shortest answer
    is asked, greedily answered and compared with the reference.

    Args:
        records: held out of the training's.
        processor: the model's.
        count: records whose text loss is measured, or all if there are fewer.
        vqa_count: records that are asked, or all with a picture if there are fewer; 0 asks none.
        seed: of the choice.
        max_new_tokens: of an answer.
        max_length: tokens of the longest conversation, as in training; questions that need more are not asked.

    Attributes:
        base: metrics of the base model, measured once. Where training moves the base itself (full fine-tuning),
            set it to `scores(model)` of the model before training; a resumed run needs the same numbers again.

    Raises:
        ValueError: a count out of range, a record that can't be used, or no picture to ask about.
    """

    def __init__(
        self,
        records: ChatRecords,
        processor: InstructVLAProcessor,
        *,
        count: int = 200,
        vqa_count: int = 50,
        seed: int = 0,
        max_new_tokens: int = 32,
        max_length: int = 2048,
    ):
        require_counts(1, count=count, max_new_tokens=max_new_tokens, max_length=max_length)
        require_counts(0, vqa_count=vqa_count, seed=seed)
        self.records, self.processor, self.max_new_tokens = records, processor, max_new_tokens
        self.base: Mapping[str, float] | None = None
        self._collator = ActionCollator(processor, max_length=max_length)
        order = np.random.default_rng(seed).permutation(len(records)).tolist()
        self.numbers = order[:count]
        for number in self.numbers:
            self._collator([records[number]])
        self.questions = self._draw_questions(order, vqa_count)
        if vqa_count and not self.questions:
            raise ValueError(
                f"{records.path} has no question about a picture that fits into max_length={max_length}; give "
                "vqa_count=0"
            )

    def measure(
        self,
        model: Any,
        *,
        batch_size: int = 8,
        rank: int = 0,
        world_size: int = 1,
        reduce: Reduce | None = None,
    ) -> dict[str, float]:
        """What a logger takes: `eval_retention/text_loss`, `…/vqa_score` (F1 of words), `…/vqa_exact_match`, and each
        as `…/base_text_loss` and so on without adapters, which is measured at the first call only.

        Args:
            model: `InstructVLAForConditionalGeneration` with adapters, not wrapped; its modes and the random state stay
                as they were. One sharded by FSDP2 needs `register_fsdp_forward_method(model, "generate")` first.
            batch_size: conversations at once.
            rank: of this process.
            world_size: processes, all of which must call this.
            reduce: sums a tensor over the ranks, e.g. `accelerator.reduce`; needed with several.

        Raises:
            ValueError: a model without adapters and no `base`, several ranks without `reduce`, or a rank or batch size
                out of range.
        """
        if self.base is None and not model.config.adapter_config.experts:
            raise ValueError(
                "this model has no adapters to leave off, so what it was before training must be known: set probe.base "
                "= probe.scores(model) before training"
            )
        shared = {"batch_size": batch_size, "rank": rank, "world_size": world_size, "reduce": reduce}
        if self.base is None:
            self.base = self.scores(model, adapters=False, **shared)
        adapted = self.scores(model, **shared)
        base = {f"{PREFIX}base_{name}": value for name, value in self.base.items()}
        return {f"{PREFIX}{name}": value for name, value in adapted.items()} | base

    def scores(
        self,
        model: Any,
        *,
        adapters: bool = True,
        batch_size: int = 8,
        rank: int = 0,
        world_size: int = 1,
        reduce: Reduce | None = None,
    ) -> dict[str, float]:
        """`text_loss`, `vqa_score` and `vqa_exact_match` of the model as it is, or without its adapters.

        Arguments and errors are those of `measure`.
        """
        if world_size > 1 and reduce is None:
            raise ValueError(f"with {world_size} processes give reduce, e.g. accelerator.reduce, to sum over them")
        options = {} if adapters else {"adapters": False}  # a model without adapters takes no such option
        # Ranks of a sharded model run in step: who has answered goes on until all have.
        in_step = {"synced_gpus": world_size > 1 and torch.distributed.is_initialized()}
        sums = RetentionSums()
        with evaluating(model):
            for numbers, counts in rank_share(batched_numbers(self.numbers, batch_size), rank, world_size):
                loss, tokens = self._text_loss(model, numbers, options)
                if counts:
                    sums.loss, sums.tokens = sums.loss + loss, sums.tokens + tokens
            places = batched_numbers(range(len(self.questions)), batch_size)
            for batch, counts in rank_share(places, rank, world_size):
                questions = [self.questions[place] for place in batch]
                answers = self.answers(model, questions, **options, **in_step)
                if counts:
                    self._count_answers(sums, questions, answers)
        if reduce is not None:
            sums = RetentionSums.from_tensor(reduce(sums.to_tensor(model.device)))
        return sums.metrics()

    def answers(self, model: Any, questions: list[Question], **options: bool) -> list[str]:
        """The model's greedy answers, at most `max_new_tokens` long; the model must be in evaluation mode.

        Args:
            model: as in `measure`.
            questions: of `self.questions`.
            options: of `model.generate`; `adapters=False` asks the base model.
        """
        samples = [self.records[question.number] for question in questions]
        asked = [sample.messages[: question.messages] for sample, question in zip(samples, questions, strict=True)]
        images = [image for row in zip(samples, asked, strict=True) for image in _shown(*row)]
        return greedy_answers(model, self.processor, asked, images, self.max_new_tokens, **options)

    def _draw_questions(self, order: list[int], count: int) -> list[Question]:
        questions: list[Question] = []
        for number in order:
            if len(questions) == count:
                break
            if question := self._question(number):
                questions.append(question)
        return questions

    def _question(self, number: int) -> Question | None:
        """That of the record's shortest answer; None without a picture, or if it is too long."""
        sample = self.records[number]
        replies = range(1, len(sample.messages), 2)
        asked = min(replies, key=lambda reply: len(sample.messages[reply]["content"]))
        text = self.processor.apply_chat_template(sample.messages[:asked], add_generation_prompt=True)
        fits = len(self.processor.encode_text(text)) + self.max_new_tokens <= self._collator.max_length
        has_picture = bool(_shown(sample, sample.messages[:asked]))
        return Question(number, asked, sample.messages[asked]["content"]) if has_picture and fits else None

    def _text_loss(self, model: Any, numbers: list[int], options: dict[str, bool]) -> tuple[float, int]:
        """Sum of the cross-entropy of a batch's labelled tokens, and how many they are."""
        batch = self._collator([self.records[number] for number in numbers])
        tokens = int((batch["labels"][:, 1:] != IGNORED).sum())
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if isinstance(tensor, torch.Tensor)}
        return model(**inputs, **options).lm_loss.item() * tokens, tokens

    def _count_answers(self, sums: RetentionSums, questions: list[Question], answers: list[str]) -> None:
        for question, answer in zip(questions, answers, strict=True):
            sums.f1 += word_f1(answer, question.reference)
            sums.exact += exact_match(answer, question.reference)
            sums.answers += 1


@dataclass(frozen=True)
class RetentionGate:
    """How much of the base model's abilities a run may lose before it is stopped.

    Args:
        max_loss_increase: largest increase of the text loss, as a share of the base's; None for any.
        max_score_drop: largest drop of the answers' F1 (0 to 1) below the base's; None for any.

    Raises:
        ValueError: a limit below 0 or not finite.
    """

    max_loss_increase: float | None = None
    max_score_drop: float | None = None

    def __post_init__(self):
        for name in ("max_loss_increase", "max_score_drop"):
            limit = getattr(self, name)
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise ValueError(f"{name} is {limit}; give a finite number, 0 or more, or None for no limit")

    def violation(self, metrics: Mapping[str, float]) -> str | None:
        """What went beyond a limit, in words; None if nothing did.

        Args:
            metrics: as `RetentionProbe.measure` gives them; others beside them are ignored.

        Raises:
            ValueError: a metric that a limit needs is missing.
        """
        if self.max_loss_increase is not None:
            loss, base = _pair(metrics, TEXT_LOSS)
            if not loss <= base * (1.0 + self.max_loss_increase):  # so that NaN is one, too
                return (
                    f"the text loss is {loss:.4g}, {loss / base - 1.0:+.2%} from the base model's {base:.4g}; "
                    f"max_loss_increase is {self.max_loss_increase:.2%}"
                )
        if self.max_score_drop is not None:
            score, base = _pair(metrics, SCORE)
            if not base - score <= self.max_score_drop:
                return (
                    f"the answers' score is {score:.3f}, {base - score:.3f} below the base model's {base:.3f}; "
                    f"max_score_drop is {self.max_score_drop:g}"
                )
        return None


def _shown(sample: ChatSample, messages: list[dict[str, Any]]) -> tuple[Any, ...]:
    """The pictures of a conversation's first messages."""
    parts = (part for message in messages if not isinstance(message["content"], str) for part in message["content"])
    return sample.images[: sum(part["type"] == "image" for part in parts)]


def _pair(metrics: Mapping[str, float], name: str) -> tuple[float, float]:
    keys = (f"{PREFIX}{name}", f"{PREFIX}base_{name}")
    if missing := [key for key in keys if key not in metrics]:
        raise ValueError(f"the evaluation gave no {missing[0]}, which the retention gate needs; add a RetentionProbe")
    return metrics[keys[0]], metrics[keys[1]]
