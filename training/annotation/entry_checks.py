"""Which entries of an annotation can be trained on, and for what reason the others can't (paper section 4.1).

Rules only: no model is asked. The language is checked of every text, grounding only of texts in English.
"""

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from instructvla.training.annotation import banned_patterns, command_grounding
from instructvla.training.annotation.command_grounding import Meaning, misfit
from instructvla.training.annotation.command_words import words
from instructvla.training.annotation.entry_language import check_languages, language_of
from instructvla.training.annotation.near_duplicates import TextCounts, are_near_duplicates
from instructvla.training.annotation.object_words import is_generic, is_kind
from instructvla.training.data.episodes import Annotation, Turn

ENGLISH = "en"
MOST_WORDS = {"caption": 80, "question": 80, "answer": 50}  # far beyond what is asked for: a model that rambles
FEWEST_WORDS = {"caption": 3, "question": 2, "answer": 1}
FEWEST_PROMISED = 3  # words with letters in the answer to a command: a verb alone, or "OK.", tells no action


class Kind(StrEnum):
    """Kinds of entries, as VLA-IT abbreviates them."""

    CAPTION = "caption"
    QUESTION = "qa"
    REWRITTEN = "cr"
    CONTEXT = "cc"


FIELDS = {Kind.QUESTION: "questions", Kind.REWRITTEN: "rewritten", Kind.CONTEXT: "contexts"}  # of an Annotation


class Reason(StrEnum):
    """Why an entry is rejected."""

    EMPTY = "empty"
    LENGTH = "length"
    MARKUP = "markup"
    REFUSAL = "refusal"
    LANGUAGE = "language"
    ROBOT = "mentions the robot"
    SOURCE = "mentions frames or instruction"
    CHAINED = "chained actions"
    ANSWER_IN_CONTEXT = "answer in context"
    REPEATS = "repeats the instruction"
    OTHER_OBJECT = "another object"
    OTHER_GOAL = "another place"
    OTHER_ACTION = "opposite action"
    DUPLICATE = "near-duplicate"
    TOO_MANY = "too many of a kind"
    REPEATED = "repeated in the dataset"
    JUDGED = "judged wrong"


PATTERNS = {
    Reason.MARKUP: banned_patterns.MARKUP,
    Reason.REFUSAL: banned_patterns.REFUSAL,
    Reason.SOURCE: banned_patterns.SOURCE,
}


@dataclass(frozen=True)
class Rejection:
    """An entry that is left out.

    Args:
        kind: of the entry.
        number: of the entry among those of its kind, from 0.
        text: of the entry; question and answer on a line each.
        reason: why.
        evidence: the words that it was rejected for, or numbers.
    """

    kind: Kind
    number: int
    text: str
    reason: Reason
    evidence: str = ""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Checked(NamedTuple):
    """What is kept of an annotation (of nothing, an empty one), and what is not."""

    annotation: Annotation
    rejections: list[Rejection]


@dataclass(frozen=True)
class CheckSettings:
    """What is allowed.

    Args:
        languages: codes such as "en"; the first is that of all texts, and commands may be in the others too.
        most_entries: of each kind; None for any number.
        most_copies: of an entry in a dataset, where copies are counted.

    Raises:
        ValueError: an unknown language, or a number below 1.
    """

    languages: tuple[str, ...] = (ENGLISH,)
    most_entries: int | None = 3
    most_copies: int = 100

    def __post_init__(self):
        check_languages(self.languages)
        for name in ("most_entries", "most_copies"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; give 1 or more.")


def checked(
    annotation: Annotation,
    instruction: str | None,
    settings: CheckSettings | None = None,
    copies: TextCounts | None = None,
) -> Checked:
    """Sorts an annotation's entries: each that is rejected has one reason, the first that applies.

    Args:
        annotation: of an episode.
        instruction: of the episode; without one, entries are not compared with it.
        settings: what is allowed; default: `CheckSettings()`.
        copies: of the dataset so far; None doesn't count them.
    """
    entries = EntryChecks(instruction, settings or CheckSettings(), copies)
    rejections: list[Rejection] = []
    caption = annotation.caption
    if caption is not None and (found := entries.of_caption(caption)) is not None:
        rejections.append(Rejection(Kind.CAPTION, 0, caption, *found))
        caption = None
    kept: dict[str, tuple[Turn, ...]] = {}
    for kind, field in FIELDS.items():
        good: list[Turn] = []
        for number, turn in enumerate(getattr(annotation, field)):
            if (found := entries.of_turn(kind, turn, good)) is None:
                good.append(turn)
            else:
                rejections.append(Rejection(kind, number, f"{turn.question}\n{turn.answer}", *found))
        kept[field] = tuple(good)
    return Checked(Annotation(caption, **kept), rejections)


def without(annotation: Annotation, places: Container[tuple[str, int]]) -> Annotation:
    """The annotation without the entries at some places, each a kind and a number."""
    kept = {
        field: tuple(turn for number, turn in enumerate(getattr(annotation, field)) if (kind, number) not in places)
        for kind, field in FIELDS.items()
    }
    return Annotation(None if (Kind.CAPTION, 0) in places else annotation.caption, **kept)


Finding = tuple[Reason, str]  # and the words it is found by


class EntryChecks:
    """The checks of one episode's entries; see `checked`."""

    def __init__(self, instruction: str | None, settings: CheckSettings, copies: TextCounts | None):
        self.instruction, self.settings, self.copies = instruction, settings, copies
        self.names = frozenset(words(instruction or ""))
        self.is_grounded = bool(instruction) and language_of(instruction, [ENGLISH]) == ENGLISH
        self.told = command_grounding.meaning(instruction) if self.is_grounded else None

    def of_caption(self, caption: str) -> Finding | None:
        """Why a caption is rejected, or None."""
        if found := self._of_text("caption", caption, self.settings.languages[:1]):
            return found
        if evidence := self._robot_mention(caption):
            return Reason.ROBOT, evidence
        return self._copied(Kind.CAPTION, caption)

    def of_turn(self, kind: Kind, turn: Turn, good: Sequence[Turn]) -> Finding | None:
        """Why a question and its answer are rejected, or None.

        Args:
            good: those of the same kind that are kept already.
        """
        main, spoken = self.settings.languages[:1], self.settings.languages
        for name, text in (("question", turn.question), ("answer", turn.answer)):
            is_command = name == "question" and kind is not Kind.QUESTION
            if found := self._of_text(name, text, spoken if is_command else main):
                return found
            if not is_command and (evidence := self._robot_mention(text)):
                return Reason.ROBOT, evidence
        if kind is not Kind.QUESTION and (found := self._of_command(kind, turn)):
            return found
        for other in good:
            if are_near_duplicates(turn.question, other.question):
                return Reason.DUPLICATE, other.question
        if (most := self.settings.most_entries) is not None and len(good) >= most:
            return Reason.TOO_MANY, f"more than {most}"
        return self._copied(kind, turn.question, turn.answer)

    def _robot_mention(self, text: str) -> str | None:
        """A person may call the robot, or the instruction be about a toy robot; nothing else speaks of one."""
        about_one = banned_patterns.robot_mention(self.instruction or "")
        return None if about_one else banned_patterns.robot_mention(text)

    def _of_text(self, name: str, text: str, languages: Sequence[str]) -> Finding | None:
        """Why a text is rejected whatever it is about, or None."""
        count = len(text.split())
        if not text.strip():
            return Reason.EMPTY, name
        for reason, pattern in PATTERNS.items():
            if reason is Reason.REFUSAL and name == "question":  # a person may say that he can't see something
                continue
            if evidence := banned_patterns.found(pattern, text):
                return reason, evidence
        if language_of(text, languages, names=self.names) is None:
            return Reason.LANGUAGE, f"the {name} is not in {' or '.join(languages)}"
        if not FEWEST_WORDS[name] <= count <= MOST_WORDS[name]:
            return Reason.LENGTH, f"the {name} has {count} words"
        return None

    def _of_command(self, kind: Kind, turn: Turn) -> Finding | None:
        """Why a rewritten command or a created context is rejected, with its answer, or None."""
        if (count := len(words(turn.answer))) < FEWEST_PROMISED:
            return Reason.LENGTH, f"the answer has {count} words"
        if evidence := banned_patterns.chained_actions(turn.answer, self.instruction):
            return Reason.CHAINED, evidence
        if kind is Kind.CONTEXT and (evidence := banned_patterns.answer_inside(turn.question, turn.answer)):
            return Reason.ANSWER_IN_CONTEXT, evidence
        if kind is Kind.REWRITTEN and self.instruction and banned_patterns.repeats(turn.question, self.instruction):
            return Reason.REPEATS, self.instruction
        if self.told is None:
            return None
        if self._is_english(turn.answer) and (found := self._of_answer(turn.answer, self.told)):
            return found
        if kind is Kind.REWRITTEN and self._is_english(turn.question):
            return self._of_meaning(turn.question, self.told, is_reworded=True)
        return None

    def _of_answer(self, answer: str, told: Meaning) -> Finding | None:
        """Why what the robot says is not about the instruction, or None."""
        promise = command_grounding.promised(answer)
        said = command_grounding.meaning(answer if promise is None else promise)
        if not said.of_role("objects"):  # "so I will pick it up": what it is, is told before
            named = [mention for mention in command_grounding.meaning(answer).named if not is_kind(mention.noun)]
            if (wrong := misfit(named, told.named)) is not None:
                return Reason.OTHER_OBJECT, str(wrong)
        return self._of_meaning(promise or answer, told, is_reworded=False)

    def _of_meaning(self, command: str, told: Meaning, is_reworded: bool) -> Finding | None:
        """Why a command is not the instruction, or None."""
        if evidence := command_grounding.undoes(command, self.instruction or ""):
            return Reason.OTHER_ACTION, evidence
        said = command_grounding.meaning(command)
        names_anything = any(map(is_generic, words(command)))
        if not (said.clauses or names_anything) and (wrong := misfit(said.named, told.named, is_reworded)) is not None:
            return Reason.OTHER_OBJECT, str(wrong)
        if (wrong := command_grounding.other_object(said, told, is_reworded)) is not None:
            return Reason.OTHER_OBJECT, str(wrong)
        if (wrong := command_grounding.other_goal(said, told, is_reworded)) is not None:
            return Reason.OTHER_GOAL, str(wrong)
        return None

    def _is_english(self, text: str) -> bool:
        return language_of(text, self.settings.languages, names=self.names) == ENGLISH

    def _copied(self, kind: Kind, *texts: str) -> Finding | None:
        if self.copies is None or (count := self.copies.add(kind, *texts)) <= self.settings.most_copies:
            return None
        return Reason.REPEATED, f"copy {count}"
