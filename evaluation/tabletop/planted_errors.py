"""Errors as an annotating model makes them, put into true answers on purpose: what checks should find is known then."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from instructvla.evaluation.tabletop.meanings import all_titles
from instructvla.training.annotation.answer_format import TURNS
from instructvla.training.annotation.entry_checks import FIELDS, Kind, Reason

Answer = dict[str, Any]
KEYS = {kind: key for kind, field in FIELDS.items() for key, of in TURNS.items() if of == field}
"""Kind of entry → its key in an answer."""
FOREIGN = (
    "Das mache ich sofort, denn hier liegt alles, was man dafür braucht.",
    "Subito, qui sul tavolo ci sono tutte le cose che servono.",
    "Eu vou pegar a maçã que está em cima da mesa.",
    "Ik pak het meteen voor je op.",
    "Już podnoszę to ze stołu.",
)
ROBOTS = (
    "{caption}, and a robot arm above them.",
    "a gripper holds one of these: {caption}.",
    "{caption}, with a mechanical claw in the corner.",
    "the end effector is near {caption}.",
)
CHAINS = (
    "I will {instruction}, and then wipe the table.",
    "I will {instruction} and after that push the chair back.",
    "I will {instruction}, then clean the sponge.",
    "First I will {instruction}. Next I will fold the towel.",
)
TELLING_CONTEXTS = (
    "It is late, so {instruction}.",
    "My guests will be here soon. Could you {instruction}?",
    "Please {instruction}, because I have no time for it.",
)
REPETITIONS = ("{instruction}.", "please {instruction}", "Robot, {instruction} now!", "could you {instruction}?")
COPIES = ("{question}, please", "so, {question}", "now {question}")
BROKEN = "broken JSON"
KEPT_SHARE = 0.4  # of a broken answer's characters


class Planted(NamedTuple):
    """An error in an answer.

    Args:
        kind: of the entry, or `BROKEN`.
        number: of the entry among those of its kind, from 0.
        reason: for which a check should reject it.
        text: of the spoilt entry.
    """

    kind: str
    number: int
    reason: str
    text: str = ""


@dataclass(frozen=True)
class Entry:
    """One of an answer's entries, to be spoilt.

    Args:
        answer: that holds it.
        kind, number: as in `Planted`.
        instruction: of the episode.
        rng: for what is drawn.
    """

    answer: Mapping[str, Any]
    kind: Kind
    number: int
    instruction: str
    rng: np.random.Generator

    @property
    def turn(self) -> dict[str, str]:
        return self.answer[KEYS[self.kind]][self.number]

    @property
    def before(self) -> dict[str, str]:
        return self.answer[KEYS[self.kind]][self.number - 1]

    def one_of(self, texts: Sequence[str]) -> str:
        return texts[self.rng.integers(len(texts))]


Turned = dict[str, str] | str | None  # the spoilt entry; None where the error doesn't fit


def with_robot(entry: Entry) -> Turned:
    return entry.one_of(ROBOTS).format(caption=entry.answer["caption"].rstrip("."))


def in_another_language(entry: Entry) -> Turned:
    foreign = entry.one_of(FOREIGN)
    return foreign if entry.kind is Kind.CAPTION else entry.turn | {"answer": foreign}


def with_another_object(entry: Entry) -> Turned:
    target = handled_title(entry.instruction)
    if target is None:
        return None
    others = [title for title in all_titles() if in_words(title, entry.instruction) is None]
    return entry.turn | {"answer": f"I will {entry.instruction.replace(target, entry.one_of(others), 1)}."}


def chained(entry: Entry) -> Turned:
    return entry.turn | {"answer": entry.one_of(CHAINS).format(instruction=entry.instruction)}


def with_the_answer_inside(entry: Entry) -> Turned:
    return entry.turn | {"question": entry.one_of(TELLING_CONTEXTS).format(instruction=entry.instruction)}


def repeating(entry: Entry) -> Turned:
    return entry.turn | {"question": entry.one_of(REPETITIONS).format(instruction=entry.instruction)}


def doubled(entry: Entry) -> Turned:
    question = entry.before["question"].rstrip(".?! ")
    return entry.before | {"question": entry.one_of(COPIES).format(question=question)}


SPOILERS: Mapping[Reason, tuple[tuple[Kind, ...], Callable[[Entry], Turned]]] = {
    Reason.ROBOT: ((Kind.CAPTION,), with_robot),
    Reason.LANGUAGE: ((Kind.CAPTION, Kind.QUESTION, Kind.REWRITTEN, Kind.CONTEXT), in_another_language),
    Reason.OTHER_OBJECT: ((Kind.REWRITTEN, Kind.CONTEXT), with_another_object),
    Reason.CHAINED: ((Kind.REWRITTEN, Kind.CONTEXT), chained),
    Reason.ANSWER_IN_CONTEXT: ((Kind.CONTEXT,), with_the_answer_inside),
    Reason.REPEATS: ((Kind.REWRITTEN,), repeating),
    Reason.DUPLICATE: ((Kind.QUESTION, Kind.REWRITTEN, Kind.CONTEXT), doubled),
}
"""Reason of a rejection → kinds of entries that get such an error, and what makes it."""


def spoilt(answer: Answer, instruction: str, noise: float, rng: np.random.Generator) -> tuple[Answer, list[Planted]]:
    """A true answer with errors, each entry with probability `noise`; and which they are."""
    answer = {key: value if key == "caption" else list(value) for key, value in answer.items()}
    planted: list[Planted] = []
    places = [(Kind.CAPTION, 0)] + [(kind, number) for kind, key in KEYS.items() for number in range(len(answer[key]))]
    for kind, number in places:
        if rng.random() >= noise:
            continue
        follows_a_true_one = number > 0 and not any(one[:2] == (kind, number - 1) for one in planted)
        for reason in rng.permutation([str(reason) for reason, (kinds, _) in SPOILERS.items() if kind in kinds]):
            if reason == Reason.DUPLICATE and not follows_a_true_one:
                continue
            made = SPOILERS[Reason(reason)][1](Entry(answer, kind, number, instruction, rng))
            if made is not None:
                put(answer, kind, number, made)
                planted.append(Planted(kind, number, str(reason), shown(made)))
                break
    return answer, planted


def put(answer: Answer, kind: Kind, number: int, entry: dict[str, str] | str) -> None:
    if kind is Kind.CAPTION:
        answer["caption"] = entry
    else:
        answer[KEYS[kind]][number] = entry


def shown(entry: dict[str, str] | str) -> str:
    """On one line."""
    return entry if isinstance(entry, str) else f"{entry['question']} | {entry['answer']}"


def broken(text: str) -> str:
    """An answer that ends too early."""
    return text[: int(KEPT_SHARE * len(text))]


def handled_title(instruction: str) -> str | None:
    """The first thing that an instruction names; None if it is about the drawer."""
    found = [(match.start(), -len(title), title) for title in all_titles() if (match := in_words(title, instruction))]
    return min(found)[2] if found else None


def in_words(title: str, text: str) -> re.Match[str] | None:
    return re.search(rf"\b{re.escape(title)}\b", text)
