"""Running counts over annotations: categories, verbs with their nouns, and the vocabulary (appendix C.1, Figure 17).

Memory grows with the vocabulary, which slows down as texts repeat, and not with the number of episodes.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from instructvla.training.annotation.annotation_texts import EpisodeTexts
from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_rules import (
    instruction_category,
    question_category,
    without_announcement,
)
from instructvla.training.annotation.command_words import Command, commands, words
from instructvla.training.data.episodes import Annotation, Turn

ORIGINAL, COMMANDS, ALL = "original instructions", "annotated instructions", "all annotated texts"
POINTS_APART = 1.1  # tokens between two points of a vocabulary's curve, as a factor


class SampledText(NamedTuple):
    """A text for another judge.

    Args:
        is_question: or else an instruction.
        text: of the annotation.
        original: plain instruction of the episode, or what the answer restates; None where neither is known.
        category: by the rules.
    """

    is_question: bool
    text: str
    original: str | None
    category: Category


@dataclass
class Vocabulary:
    """Words of a growing corpus.

    Attributes:
        counts: word → how often it came.
        tokens: words in all.
        curve: (tokens, different words) on the way, ever farther apart.
    """

    counts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    curve: list[tuple[int, int]] = field(default_factory=list)

    def add(self, text: str) -> None:
        found = words(text)
        self.counts.update(found)
        self.tokens += len(found)
        if found and (not self.curve or self.tokens >= POINTS_APART * self.curve[-1][0]):
            self.curve.append((self.tokens, len(self.counts)))

    def points(self) -> list[tuple[int, int]]:
        """The curve to its end."""
        end = (self.tokens, len(self.counts))
        return self.curve if not self.tokens or self.curve[-1] == end else [*self.curve, end]

    def new_words(self, known: "Vocabulary") -> tuple[float, float]:
        """Shares of this vocabulary that another one lacks: of its different words, and of all its words."""
        new = [count for word, count in self.counts.items() if word not in known.counts]
        return len(new) / max(len(self.counts), 1), sum(new) / max(self.tokens, 1)


class Census:
    """Counts over episodes.

    Args:
        sample_size: texts that are kept for another judge, each as likely as any other.
        seed: of that choice.

    Attributes:
        episodes, instructed, annotated: numbers of episodes.
        entries: kind of text → their number.
        instruction_categories, question_categories: by the rules.
        commands: corpus → its verbs with their nouns; texts without a known verb count in `without_command`.
        vocabularies: corpus → its words.
    """

    def __init__(self, sample_size: int = 0, seed: int = 0):
        self.episodes = self.instructed = self.annotated = 0
        self.entries: Counter[str] = Counter()
        self.instruction_categories: Counter[Category] = Counter()
        self.question_categories: Counter[Category] = Counter()
        self.commands: dict[str, Counter[Command]] = {ORIGINAL: Counter(), COMMANDS: Counter()}
        self.without_command: Counter[str] = Counter()
        self.vocabularies = {name: Vocabulary() for name in (ORIGINAL, COMMANDS, ALL)}
        self._sample_size, self._random = sample_size, random.Random(seed)
        self._sample: list[SampledText] = []
        self._seen = 0

    def add(self, texts: EpisodeTexts) -> None:
        """Counts an episode."""
        self.episodes += 1
        if texts.instruction is not None:
            self.instructed += 1
            self._add_command(ORIGINAL, texts.instruction)
        if texts.annotation is not None:
            self.annotated += 1
            self._add_annotation(texts.annotation, texts.instruction)

    @property
    def sample(self) -> list[SampledText]:
        """The texts that were chosen."""
        return list(self._sample)

    def _add_annotation(self, annotation: Annotation, instruction: str | None) -> None:
        self.entries.update({"captions": annotation.caption is not None, "questions": len(annotation.questions)})
        self.entries.update({"rewritten": len(annotation.rewritten), "contexts": len(annotation.contexts)})
        for text in all_texts(annotation):
            self.vocabularies[ALL].add(text)
        for turn in (*annotation.rewritten, *annotation.contexts):
            original = instruction or without_announcement(turn.answer) or None
            self._add_command(COMMANDS, turn.question)
            self._classify(SampledText(False, turn.question, original, instruction_category(turn.question, original)))
        for turn in annotation.questions:
            self._classify(SampledText(True, turn.question, instruction, question_category(turn.question)))

    def _add_command(self, corpus: str, text: str) -> None:
        self.vocabularies[corpus].add(text)
        first = next(commands(text), None)
        if first is None:
            self.without_command[corpus] += 1
        else:
            self.commands[corpus][first] += 1

    def _classify(self, text: SampledText) -> None:
        counts = self.question_categories if text.is_question else self.instruction_categories
        counts[text.category] += 1
        self._seen += 1
        if len(self._sample) < self._sample_size:
            self._sample.append(text)
        elif (place := self._random.randrange(self._seen)) < self._sample_size:
            self._sample[place] = text


def all_texts(annotation: Annotation) -> Iterator[str]:
    if annotation.caption is not None:
        yield annotation.caption
    for turn in turns(annotation):
        yield turn.question
        yield turn.answer


def turns(annotation: Annotation) -> Iterable[Turn]:
    return (*annotation.questions, *annotation.rewritten, *annotation.contexts)
