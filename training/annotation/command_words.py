"""Words of a text, and the verbs and nouns of its commands, for the verb-noun counts of the paper's Figure 17.

No parser is needed: a command begins, after what is polite, with one of the verbs that `command_words.yaml` lists, and
its noun is the last word before the next preposition. Texts in other languages than English have words, but no commands
here.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

WORDS_FILE = Path(__file__).with_name("command_words.yaml")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
CLAUSE = re.compile(r"[.!?;:,]+|\b(?:and|then|so|but|or)\b", re.IGNORECASE)
VOWELS = "aeiou"


class Command(NamedTuple):
    """What is to be done: a verb's base form, and the head noun of what it is done to, or None."""

    verb: str
    noun: str | None


@cache
def word_list(name: str) -> frozenset[str]:
    """A list of `command_words.yaml`, e.g. "colours"."""
    return frozenset(map(str, yaml.safe_load(WORDS_FILE.read_text(encoding="utf-8"))[name]))


def words(text: str) -> list[str]:
    """Its words in any language, in lower case; numbers are none."""
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def commands(text: str) -> Iterator[Command]:
    """The commands of an English text in their order, e.g. (pick, apple), (put, bowl)."""
    for clause in CLAUSE.split(text):
        tokens = after_opening(words(clause))
        if tokens and (verb := base_verb(tokens[0])) is not None:
            yield Command(verb, head_noun(tokens[1:]))


def after_opening(tokens: Sequence[str]) -> list[str]:
    """What follows the polite words that a command may begin with: "could you please pick …" → "pick …"."""
    tokens = list(tokens)
    while tokens and (length := opening_length(tokens)):
        tokens = tokens[length:]
    return tokens


def opening_length(tokens: Sequence[str]) -> int:
    """How many words at the start are one opening of `command_words.yaml`."""
    longest = max(len(opening) for opening in openings())
    fits = (length for length in range(min(longest, len(tokens)), 0, -1) if tuple(tokens[:length]) in openings())
    return next(fits, 0)


@cache
def openings() -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words(opening)) for opening in word_list("openings"))


def base_verb(token: str) -> str | None:
    """The listed verb whose base form or -ing form a word is."""
    return verb_forms().get(token)


@cache
def verb_forms() -> dict[str, str]:
    """Form → verb."""
    return {form: verb for verb in sorted(word_list("verbs")) for form in (verb, *ing_forms(verb))}


def ing_forms(verb: str) -> tuple[str, ...]:
    """Spellings of which the right one is among: "moveing", "moving"; "puting", "putting"."""
    if verb.endswith("e"):
        return (f"{verb}ing", f"{verb[:-1]}ing")
    is_doubled = len(verb) > 2 and verb[-1] not in VOWELS and verb[-2] in VOWELS
    return (f"{verb}ing", f"{verb}{verb[-1]}ing") if is_doubled else (f"{verb}ing",)


def head_noun(tokens: Sequence[str]) -> str | None:
    """The last word of the first noun phrase: ["up", "the", "red", "apple", "from", …] → "apple"."""
    phrase: list[str] = []
    for token in tokens:
        if phrase and token == "of" and phrase[-1] in word_list("quantities"):
            phrase = []
        elif phrase and token in word_list("boundaries"):
            break
        elif token not in word_list("fillers") and (phrase or token not in word_list("boundaries")):
            phrase.append(token)
    return phrase[-1] if phrase else None
