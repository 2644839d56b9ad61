"""Appendix C.1's categories by a language model, to see how far it agrees with the rules."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from instructvla.training.annotation.annotation_census import SampledText
from instructvla.training.annotation.answer_format import closed_object, json_objects
from instructvla.training.annotation.categories import (
    INSTRUCTION_CATEGORIES,
    MEANINGS,
    QUESTION_CATEGORIES,
    Category,
)
from instructvla.training.annotation.category_agreement import Agreement
from instructvla.training.annotation.chat_endpoint import Asking, FailedRequestError, Reply

TEXTS_EACH = 20  # in a request
REQUESTS_AT_ONCE = 8

TASK = """You sort texts that were written for robot data. Each text gets exactly one of these categories:
{categories}

{what}
Where two categories fit, take the one that makes the text harder for a robot that only knows plain commands.
Answer with JSON alone: {{"labels": [{{"number": 1, "category": "…"}}, …]}}, one label for each text, in their order."""
INSTRUCTIONS = "The texts tell a robot what to do. The plain instruction, where it is known, stands in brackets."
QUESTIONS = "The texts are questions about a picture of the robot's scene."


@dataclass(frozen=True)
class Judgement:
    """A model's categories.

    Args:
        agreement: of the rules, first, with the model.
        unanswered: texts without a usable category.
        problem: the first reason for that, or None.
        prompt_tokens, completion_tokens: that were used.
    """

    agreement: Agreement
    unanswered: int
    problem: str | None
    prompt_tokens: int
    completion_tokens: int

    def record(self) -> dict[str, Any]:
        """As JSON."""
        pairs = [[*pair, count] for pair, count in sorted(self.agreement.pairs.items())]
        tokens = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return self.agreement.rate.record() | {"kappa": self.agreement.kappa, "pairs": pairs} | tokens


async def label_texts(endpoint: Asking, texts: Sequence[SampledText]) -> Judgement:
    """A model's categories of texts; those that it gives none for are counted and left out.

    Raises:
        EndpointError: the endpoint can't be used at all.
    """
    at_once = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def answered(batch: Sequence[SampledText]) -> tuple[Sequence[SampledText], Reply]:
        async with at_once:
            try:
                return batch, await endpoint.ask(messages(batch), schema(batch[0].is_question))
            except FailedRequestError as error:
                return batch, Reply("", problem=str(error))

    replies = await asyncio.gather(*map(answered, batches(texts)))
    pairs, problems = [], []
    for batch, reply in replies:
        found, problem = labels(reply, batch)
        pairs += [(text.category, found[number]) for number, text in enumerate(batch, start=1) if number in found]
        problems += [problem] if problem else []
    return Judgement(
        agreement=Agreement.of(pairs),
        unanswered=len(texts) - len(pairs),
        problem=next(iter(problems), None),
        prompt_tokens=sum(reply.prompt_tokens for _, reply in replies),
        completion_tokens=sum(reply.completion_tokens for _, reply in replies),
    )


def batches(texts: Sequence[SampledText]) -> Iterator[list[SampledText]]:
    """Texts for a request each: instructions, then questions."""
    for is_question in (False, True):
        some = iter([text for text in texts if text.is_question is is_question])
        while batch := list(islice(some, TEXTS_EACH)):
            yield batch


def messages(batch: Sequence[SampledText]) -> list[dict[str, Any]]:
    """The request for texts of one kind."""
    is_question = batch[0].is_question
    listed = "\n".join(f"- {category}: {MEANINGS[category]}" for category in choices(is_question))
    told = TASK.format(categories=listed, what=QUESTIONS if is_question else INSTRUCTIONS)
    return [{"role": "system", "content": told}, {"role": "user", "content": "\n".join(numbered(batch))}]


def numbered(batch: Iterable[SampledText]) -> Iterator[str]:
    for number, text in enumerate(batch, start=1):
        known = f" [{text.original}]" if text.original and not text.is_question else ""
        yield f"{number}. {' '.join(text.text.split())}{known}"


def schema(is_question: bool) -> dict[str, Any]:
    """Of the answer."""
    names = list(map(str, choices(is_question)))
    label = closed_object({"number": {"type": "integer"}, "category": {"type": "string", "enum": names}})
    return closed_object({"labels": {"type": "array", "items": label}})


def choices(is_question: bool) -> tuple[Category, ...]:
    return QUESTION_CATEGORIES if is_question else INSTRUCTION_CATEGORIES


def labels(reply: Reply, batch: Sequence[SampledText]) -> tuple[dict[int, Category], str | None]:
    """Number → category as far as the reply gives them, and what is wrong with the rest."""
    if reply.problem:
        return {}, reply.problem
    given = next(json_objects(reply.text), {})
    try:
        pairs = [(label["number"], label["category"]) for label in given["labels"]]
    except (KeyError, TypeError) as error:
        return {}, f"an answer is not the JSON that was asked for ({error!r})"
    names = {str(category): category for category in choices(batch[0].is_question)}
    numbers = range(1, len(batch) + 1)
    found = {number: names[name] for number, name in pairs if name in names and number in numbers}
    lacking = len(batch) - len(found)
    return found, f"an answer lacks {lacking} of {len(batch)} categories" if lacking else None


def judgement_text(judgement: Judgement, model: str) -> str:
    """What it cost and what is missing, in a line."""
    text = f"{model} used {judgement.prompt_tokens:,} tokens in and {judgement.completion_tokens:,} out"
    if judgement.unanswered:
        text += f"; {judgement.unanswered} texts got no category: {judgement.problem}"
    return text
