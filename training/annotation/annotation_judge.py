"""A second model's verdict 0, 0.5 or 1 on each entry that passed the checks, with a reason; see paper appendix C.3.

Verdicts are kept in a ledger as they come, under what was asked: run again, only what has none yet is asked about.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from instructvla.evaluation.ledger import Ledger
from instructvla.training.annotation.annotation_check import entries_of
from instructvla.training.annotation.answer_format import TEXT, closed_object, json_objects
from instructvla.training.annotation.chat_endpoint import Asking, FailedRequestError, Reply
from instructvla.training.annotation.entry_checks import Kind, Reason, Rejection
from instructvla.training.annotation.mark_rates import SCORES, ErrorType, Mark
from instructvla.training.data.episodes import Annotation

VERSION = "1"  # of the prompt
ASKS = 2  # of an episode, if the first answer can't be used
NO_ERROR = "none"
MOST_FAILURES = 5  # episodes in a row without an answer, after which nothing more is asked

TASK = """You check training data for a robot that understands people. A camera watched a robot follow an instruction,
which is true. You get it with up to three pictures, from the start, the middle and the end of the recording, and with
entries that another model wrote. Judge every entry by itself:
1 if there is no obvious error, 0.5 if there are minor errors, 0 if it is wrong or useless.

- caption: what it names must be visible; nothing about the robot.
- qa: question and answer about the scene; the answer must be true in all pictures.
- cr: the instruction in other words, and the robot's reply. The words must mean the same thing, place and action, and
  fit nothing else in the pictures.
- cc: what a person could say so that the instruction is the sensible next step, without naming it, and the robot's
  reply, which must be that one step.

For an error, name its kind:
{errors}

Answer with JSON alone: {{"verdicts": [{{"entry": "cr/0", "score": 0.5, "error": "…", "reason": "…"}}, …]}}, one verdict
for each entry, in their order; the reason in at most 20 words, the error "none" where the score is 1."""
MEANINGS = {
    ErrorType.IGNORED_CONTEXT: "it contradicts, or can't be told from, what the pictures show",
    ErrorType.REVERSED_ORDER: "it takes the end for the start",
    ErrorType.HALLUCINATION: "it adds an object or an attribute that is not there",
    ErrorType.OTHER_TASK: "it is about something else than the instruction",
    ErrorType.AMBIGUOUS: "it could mean several objects in the pictures",
    ErrorType.GIVEN_AWAY: "the context says what the robot should find out",
    ErrorType.LANGUAGE: "it is no correct, natural sentence",
    ErrorType.OTHER: "anything else",
}


@dataclass(frozen=True)
class JudgedEpisode:
    """What a judge is asked about.

    Args:
        number: of the episode in the dataset.
        instruction: of the recording, or None.
        annotation: whose entries are judged.
        left_out: kind and number of those that are not, as they were rejected before.
        pictures: data URLs of the first, the middle and the last, or none.
    """

    number: int
    instruction: str | None
    annotation: Annotation
    left_out: frozenset[tuple[str, int]] = frozenset()
    pictures: Sequence[str] = ()

    @property
    def entries(self) -> dict[str, str]:
        """Name, such as "cr/0" → text of each entry that is judged."""
        return {
            f"{kind}/{number}": entry if isinstance(entry, str) else f"{entry.question} → {entry.answer}"
            for kind in Kind
            for number, entry in enumerate(entries_of(self.annotation, kind))
            if (kind, number) not in self.left_out
        }

    @property
    def key(self) -> tuple[int, str]:
        """Its number, and a digest of the texts that are judged."""
        return self.number, hashlib.sha256(json.dumps([self.instruction, self.entries]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Verdicts:
    """A judge's marks on an episode's entries.

    Args:
        episode: its number.
        digest: of what was asked.
        marks: in the order of the entries.
        texts: of the entries.
        reasons: of the marks.
        prompt_tokens, completion_tokens: of all answers that were paid for.
        problem: why there are no marks, or None.
    """

    episode: int
    digest: str
    marks: tuple[Mark, ...] = ()
    texts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problem: str | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.episode, self.digest

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        marks = tuple(Mark.of_record(mark) for mark in record["marks"])
        return cls(**{**record, "marks": marks, **{name: tuple(record[name]) for name in ("texts", "reasons")}})

    @property
    def rejections(self) -> list[Rejection]:
        """The entries that are completely wrong, as the checks reject them."""
        return [
            Rejection(
                Kind(mark.kind),
                int(mark.entry.partition("/")[2]),
                text,
                Reason.JUDGED,
                f"{mark.error}: {reason}" if mark.error else reason,
            )
            for mark, text, reason in zip(self.marks, self.texts, self.reasons, strict=True)
            if mark.score == 0
        ]


async def judge_all(
    endpoint: Asking,
    episodes: Iterator[JudgedEpisode],
    ledger: Ledger[Verdicts],
    concurrency: int = 8,
    progress: Callable[[], None] = lambda: None,
) -> dict[int, str]:
    """Verdicts on all episodes into the ledger; those that it has are not asked for again.

    Args:
        endpoint: that judges.
        episodes: read one after the other, as they are needed.
        ledger: of the verdicts.
        concurrency: most questions at once.
        progress: called after each episode.

    Returns:
        Number of each episode that got no answer → why; asked about by another run.

    Raises:
        EndpointError: the endpoint can't be used at all.
        FailedRequestError: several episodes in a row got no answer.
    """
    lock, failures = asyncio.Lock(), 0
    failed: dict[int, str] = {}

    async def work() -> None:
        nonlocal failures
        while True:
            async with lock:
                episode = await asyncio.to_thread(next, episodes, None)
            if episode is None:
                return
            known = ledger.outcomes.get(episode.key)
            if episode.entries and (known is None or known.problem is not None):
                try:
                    ledger.add(await verdicts(endpoint, episode))
                    failures = 0
                except FailedRequestError as error:
                    failed[episode.number] = str(error)
                    failures += 1
                    if failures >= MOST_FAILURES:
                        raise
            progress()

    tasks = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return failed


async def verdicts(endpoint: Asking, episode: JudgedEpisode) -> Verdicts:
    """The judge's verdicts on an episode; asked once more if its answer can't be used.

    Raises:
        EndpointError, FailedRequestError: as `ChatEndpoint.ask`.
    """
    request, paid = messages(episode), []
    problem = ""
    for _ in range(ASKS):
        reply = await endpoint.ask(request, schema(episode))
        paid.append(reply)
        tokens = {name: sum(getattr(one, name) for one in paid) for name in ("prompt_tokens", "completion_tokens")}
        try:
            marks, reasons = marks_in(reply, episode)
            return Verdicts(*episode.key, marks, tuple(episode.entries.values()), reasons, **tokens)
        except ValueError as error:
            problem = reply.problem or str(error)
    return Verdicts(*episode.key, **tokens, problem=problem)


def marks_in(reply: Reply, episode: JudgedEpisode) -> tuple[tuple[Mark, ...], tuple[str, ...]]:
    """Marks and reasons of an answer.

    Raises:
        ValueError: it has not just one verdict for each entry.
    """
    for value in reversed(list(json_objects(reply.text))):
        given = value.get("verdicts")
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            continue
        named = {one.get("entry"): one for one in given}
        if len(named) != len(given) or named.keys() != episode.entries.keys():
            raise ValueError(f"it has verdicts on {list(named)}, not on each of {list(episode.entries)}")
        marks = tuple(mark_of(episode.number, named[entry]) for entry in episode.entries)
        return marks, tuple(str(named[entry].get("reason", "")) for entry in episode.entries)
    raise ValueError("it holds no verdicts")


def mark_of(number: int, verdict: Mapping[str, Any]) -> Mark:
    error = verdict.get("error")
    known = error if error in list(ErrorType) else None
    return Mark.of_record({**verdict, "episode": number, "error": None if verdict.get("score") == 1 else known})


def messages(episode: JudgedEpisode) -> list[dict[str, Any]]:
    """The request about an episode."""
    kinds = "\n".join(f'- "{error}": {meaning}' for error, meaning in MEANINGS.items())
    told = [f"Instruction: {episode.instruction or 'unknown'}", "Entries:"]
    told += [f"{name}: {' '.join(text.split())}" for name, text in episode.entries.items()]
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in episode.pictures]
    content = [*pictures, {"type": "text", "text": "\n".join(told)}]
    return [{"role": "system", "content": TASK.format(errors=kinds)}, {"role": "user", "content": content}]


def schema(episode: JudgedEpisode) -> dict[str, Any]:
    """Of the answer."""
    verdict = closed_object(
        {
            "entry": {"type": "string", "enum": list(episode.entries)},
            "score": {"type": "number", "enum": list(SCORES)},
            "error": {"type": "string", "enum": [NO_ERROR, *ErrorType]},
            "reason": TEXT,
        }
    )
    return closed_object({"verdicts": {"type": "array", "items": verdict}})
