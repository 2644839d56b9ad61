"""Which language a short text is in: the share of its words that the language's dictionary (simplemma's) has."""

from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from importlib import import_module
from types import ModuleType

from instructvla.training.annotation.command_words import WORD

KNOWN_SHARE = 0.65  # of its words, from which on a text is in a language; names and slips are the rest
FEWEST_TELLING = 2  # words; a single one may be a name
MEMORY = 100_000  # words


def language_of(text: str, languages: Sequence[str], names: Collection[str] = ()) -> str | None:
    """The first of some languages that the text is in, or None.

    Args:
        text: of any length; one of a single word is taken to be in the first language.
        languages: codes, such as "en", most likely first.
        names: words in lower case that any language may have, such as those of the instruction.

    Raises:
        ValueError: a language without dictionary.
        ModuleNotFoundError: simplemma is not installed.
    """
    check_languages(languages)
    telling = [word.lower() for word in content_words(text)]
    if len(telling) < FEWEST_TELLING and text.isascii():
        return languages[0]
    shares = {
        language: sum(word in names or is_known(word, language) for word in telling) / len(telling)
        for language in languages
    }
    best = max(languages, key=lambda language: shares[language])
    return best if shares[best] >= KNOWN_SHARE else None


def check_languages(languages: Sequence[str]) -> None:
    known = supported_languages()
    if wrong := [language for language in languages if language not in known]:
        raise ValueError(f"{wrong[0]!r} is no language with a dictionary; give some of {', '.join(known)}.")
    if not languages:
        raise ValueError("no language is given; the first is that of the answers, e.g. en.")


def content_words(text: str) -> list[str]:
    """Words, without names: those with a capital that begin no sentence."""
    found, end = [], 0
    for match in WORD.finditer(text):
        begins = not found or any(mark in text[end : match.start()] for mark in '.!?:;"“')
        if begins or not match[0][0].isupper():
            found += match[0].replace("’", "'").replace("-", " ").split()
        end = match.end()
    return found


@cache
def supported_languages() -> tuple[str, ...]:
    lemmatizer()
    return tuple(sorted(import_module("simplemma.strategies.dictionaries.dictionary_factory").SUPPORTED_LANGUAGES))


@lru_cache(MEMORY)
def is_known(word: str, language: str) -> bool:
    """Whether the dictionary has a word, or a part of one with an apostrophe, such as "l'orange"."""
    return any(lemmatizer().is_known(part, lang=language) for part in (word, *word.split("'")) if part)


@cache
def lemmatizer() -> ModuleType:
    try:
        return import_module("simplemma")
    except ModuleNotFoundError as error:
        message = "checking languages needs simplemma, which is not installed: pip install 'instructvla[annotate]'"
        raise ModuleNotFoundError(message, name=error.name) from error
