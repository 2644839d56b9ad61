"""What an English text names: things of `object_words.yaml`, with their attributes, and whether two can be one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from instructvla.training.annotation.command_words import word_list

FILE = Path(__file__).with_name("object_words.yaml")
LONGEST = 3  # words of a listed name
ATTRIBUTES_REACH = 4  # words before a noun in which its attributes stand
PRONOUNS = {"i", "you", "we", "it", "they", "he", "she", "that", "which", "who"}


@dataclass(frozen=True)
class Mention:
    """A listed thing in a text, such as "the small red cola can".

    Args:
        noun: the word that stands for all that mean the same, e.g. "can".
        word: as the text has it.
        modifiers: listed nouns before it, e.g. {"cola"}.
        attributes: kind → value, e.g. {"colour": "red", "size": "small"}.
    """

    noun: str
    word: str
    modifiers: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)

    def may_be(self, other: "Mention") -> bool:
        """Whether both can mean one thing: related nouns, and no attribute of which they tell different values."""
        if not (related(self.noun, other.noun) or self._may_hold(other) or other._may_hold(self)):
            return False
        if any(other.attributes.get(kind, value) != value for kind, value in self.attributes.items()):
            return False
        if not (self.modifiers and other.modifiers):
            return True
        return any(related(one, another) for one in self.modifiers for another in other.modifiers)

    def _may_hold(self, other: "Mention") -> bool:
        """Whether this is what the other is in: "the cola can" of "the cola", and "the can" of any drink."""
        is_package = self.noun in data()["packages"]
        if self.modifiers:
            return other.noun in self.modifiers or (
                is_package and any(related(one, other.noun) for one in self.modifiers)
            )
        return is_package and is_content(other.noun)

    def __str__(self) -> str:
        return " ".join([*self.attributes.values(), *sorted(self.modifiers), self.word])


@cache
def data() -> Mapping[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


@cache
def same_words() -> Mapping[str, str]:
    """Word → the one that stands for all that mean the same."""
    return {word: group[0] for group in data()["same"] for word in group}


@cache
def wholes() -> Mapping[str, frozenset[str]]:
    """Word → the kinds that it belongs to and what it is a part of, near and far."""
    direct: dict[str, set[str]] = {}
    for whole, listed in [*data()["kinds"].items(), *data()["parts"].items()]:
        for word in listed:
            direct.setdefault(standing(word), set()).add(standing(whole))
    found = {}
    for word in direct:
        above, waiting = set(), set(direct[word])
        while waiting:
            above |= waiting
            waiting = {far for near in waiting for far in direct.get(near, ())} - above
        found[word] = frozenset(above - {word})
    return found


@cache
def related(one: str, other: str) -> bool:
    """Whether two listed words can mean the same thing: the same, a kind of it, or a part of it."""
    one, other = standing(one), standing(other)
    return one == other or one in wholes().get(other, ()) or other in wholes().get(one, ())


def is_content(noun: str) -> bool:
    """Whether it is mostly in a package."""
    return any(name in data()["contents"] for name in (noun, *wholes().get(noun, ())))


def standing(word: str) -> str:
    return same_words().get(word, word)


@cache
def nouns() -> Mapping[tuple[str, ...], str]:
    """Words of each name in singular and plural → the name that stands for it."""
    grouped = [*data()["kinds"].items(), *data()["parts"].items()]
    names = {*same_words(), *data()["others"], *(name for whole, listed in grouped for name in (whole, *listed))}
    found = {}
    for name in sorted(map(str, names)):
        *first, last = name.split()
        found |= {(*first, form): standing(name) for form in (*plurals(last), last)}
    return found


def plurals(noun: str) -> tuple[str, ...]:
    """Spellings of which the right one is among: "knifes", "knives"."""
    spelled = [f"{noun}s", f"{noun}es"]
    if noun.endswith("y"):
        spelled.append(f"{noun[:-1]}ies")
    if noun.endswith(("f", "fe")):
        spelled.append(f"{noun.rstrip('e')[:-1]}ves")
    return tuple(spelled)


@cache
def attribute_values() -> Mapping[str, tuple[str, str]]:
    """Word → kind of attribute and the value that stands for it."""
    return {
        word: (kind, values[0]) for kind, groups in data()["attributes"].items() for values in groups for word in values
    }


def mentions(tokens: Sequence[str]) -> list[Mention]:
    """The listed things that words name, in their order.

    Of adjacent nouns the last is the thing and the others tell which, as in "orange juice bottle". Words for anything
    ("object") are none.
    """
    found = []
    for start, end, run in noun_runs(tokens):
        noun, word = run[-1]
        if end < len(tokens) and (is_generic(tokens[end]) or (word in attribute_values() and continues(tokens[end]))):
            continue
        before = [*leading(tokens, start), *(word for _, word in run[:-1])]
        found.append(Mention(noun, word, frozenset(name for name, _ in run[:-1]), attributes(before)))
    return found


def noun_runs(tokens: Sequence[str]) -> Iterator[tuple[int, int, list[tuple[str, str]]]]:
    """Where adjacent nouns begin and end, and for each the name that stands for it and its words."""
    place = 0
    while place < len(tokens):
        start, run = place, []
        while (length := noun_length(tokens, place)) > 0:
            words = tuple(tokens[place : place + length])
            run.append((nouns()[words], " ".join(words)))
            place += length
        if run:
            yield start, place, run
        place += not run


def continues(token: str) -> bool:
    """Whether a noun phrase goes on with a word."""
    return token not in word_list("boundaries") and token not in word_list("fillers")


def is_generic(token: str) -> bool:
    return token in data()["generic"]


def is_kind(noun: str) -> bool:
    """Whether other listed things are of that kind."""
    return noun in data()["kinds"]


def is_shape(noun: str) -> bool:
    """Whether its name may say what shape something else has."""
    return noun in data()["shapes"]


def has_kind(noun: str) -> bool:
    """Whether it is listed as a thing of some kind."""
    return is_kind(noun) or bool(wholes().get(noun))


def noun_length(tokens: Sequence[str], place: int) -> int:
    """How many words of the longest listed name begin at a place; 0 for none."""
    if tokens[place : place + 1] == ["can"] and (place == 0 or PRONOUNS & {*tokens[place - 1 : place + 2 : 2]}):
        return 0  # the verb
    lengths = range(min(LONGEST, len(tokens) - place), 0, -1)
    return next((length for length in lengths if tuple(tokens[place : place + length]) in nouns()), 0)


def leading(tokens: Sequence[str], start: int) -> list[str]:
    """The words before a noun that may tell its attributes."""
    found: list[str] = []
    for token in reversed(tokens[max(0, start - ATTRIBUTES_REACH) : start]):
        if not (token in attribute_values() or continues(token)):
            break
        found.insert(0, token)
    return found


def attributes(tokens: Sequence[str]) -> dict[str, str]:
    return dict(attribute_values()[token] for token in tokens if token in attribute_values())


@cache
def opposite_verbs() -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    """Patterns of verbs of which one undoes the other."""
    return tuple((pattern(one), pattern(other)) for one, other in data()["opposites"])


def pattern(phrases: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b")
