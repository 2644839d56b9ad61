"""Texts that say the same in nearly the same words: in an episode by their word pairs, in a dataset by counting."""

import hashlib
import re
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

SIMILAR = 0.8  # Jaccard similarity of word pairs; of two sentences that differ in one word only long ones reach it
EMPTY_WORDS = {
    "a", "an", "the", "please", "kindly", "now", "just", "robot", "okay", "ok", "sure", "hey", "hi", "hello",
}  # fmt: skip
OPENINGS = re.compile(
    r"^(?:(?:can|could|would|will) you |i (?:want|need) you to |i(?:'d| would) like you to |go ahead and )"
)
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
ROWS, COLUMNS = 4, 1 << 24  # of counters: 128 MiB


def normalised(text: str) -> tuple[str, ...]:
    """Its words in lower case, in their order, without articles and what is merely polite."""
    plain = " ".join(word.replace("’", "'") for word in WORD.findall(text.lower()))
    return tuple(without_empty(OPENINGS.sub("", " ".join(without_empty(plain.split()))).split()))


def without_empty(words: Iterable[str]) -> list[str]:
    return [word for word in words if word not in EMPTY_WORDS]


def are_near_duplicates(one: str, other: str) -> bool:
    """Whether two texts have nearly the same words in nearly the same order."""
    first, second = pairs(normalised(one)), pairs(normalised(other))
    return len(first & second) >= SIMILAR * len(first | second)


def pairs(words: tuple[str, ...]) -> set[tuple[str, str]]:
    """Neighbouring words, where start and end count as words."""
    return set(pairwise(("", *words, "")))


class TextCounts:
    """How often each text of a dataset was seen, in memory that doesn't grow with it.

    A count-min sketch with conservative update (Estan and Varghese 2002): a count is never too small, and after n
    different texts it is too large with a probability below (1 - exp(-n / COLUMNS)) ** ROWS, 0.5 % for five million.
    """

    def __init__(self) -> None:
        self.counters = np.zeros((ROWS, COLUMNS), np.uint16)

    def add(self, *texts: str) -> int:
        """Counts what the texts say together; returns how often it was seen, this time too."""
        said = "\n".join(" ".join(normalised(text)) for text in texts)
        digest = hashlib.blake2b(said.encode(), digest_size=8 * ROWS).digest()
        places = np.arange(ROWS), np.frombuffer(digest, np.uint64) % COLUMNS
        counts = self.counters[places]
        seen = min(int(counts.min()) + 1, int(np.iinfo(np.uint16).max))
        self.counters[places] = np.maximum(counts, seen)
        return seen
