"""How well a short answer matches its reference: exact match and F1 of words, as SQuAD defines them.

Case, punctuation and articles do not count (Rajpurkar et al., 2016, arXiv 1606.05250, section 6.1).
"""

import re
from collections import Counter

ARTICLES = {"a", "an", "the"}


def answer_words(text: str) -> list[str]:
    """The words that count; the text's articles only where it holds nothing else."""
    words = re.findall(r"\w+", text.casefold())
    return [word for word in words if word not in ARTICLES] or words


def exact_match(answer: str, reference: str) -> float:
    """1.0 if the same words come in the same order, else 0.0."""
    return float(answer_words(answer) == answer_words(reference))


def word_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, 0.0 to 1.0; two texts without words match."""
    given, wanted = Counter(answer_words(answer)), Counter(answer_words(reference))
    if not given or not wanted:
        return float(given == wanted)
    return 2.0 * (given & wanted).total() / (given.total() + wanted.total())
