"""A page on which a person marks annotations with 0, 0.5 or 1 (paper appendix C.3): three pictures and all entries.

The page needs nothing from elsewhere, and its content security policy lets it load nothing. Marks are kept in the
browser, and saved as a file for `instructvla annotation-marks`.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructvla.training.annotation.annotation_check import entries_of
from instructvla.training.annotation.entry_checks import Kind
from instructvla.training.annotation.mark_rates import FORMAT, SAMPLE, SCORES, ErrorType
from instructvla.training.data.episodes import Annotation
from instructvla.training.data.html_page import render_html

TEMPLATE = Path(__file__).parent / "sample_sheet.html.jinja"
TITLES = {
    Kind.CAPTION: "Caption",
    Kind.QUESTION: "Question answering",
    Kind.REWRITTEN: "Command rewriting",
    Kind.CONTEXT: "Context creation",
}
KEPT = 16  # digits of the sheet's fingerprint


@dataclass(frozen=True)
class ShownSample:
    """What a person or a judge sees of an annotated episode.

    Args:
        episode: its number in the dataset, from 0.
        instruction: of the recording, or None.
        annotation: whose entries are marked.
        pictures: data URLs of the first, the middle and the last; none where the source has no pictures.
    """

    episode: int
    instruction: str | None
    annotation: Annotation
    pictures: Sequence[str] = ()

    @property
    def rows(self) -> Iterator[dict[str, Any]]:
        """What is marked: each entry, and then the sample as a whole."""
        for kind in Kind:
            for number, entry in enumerate(entries_of(self.annotation, kind)):
                texts = [entry] if isinstance(entry, str) else [entry.question, entry.answer]
                yield {"entry": f"{kind}/{number}", "title": TITLES[kind] if not number else "", "texts": texts}
        yield {"entry": SAMPLE, "title": "The whole sample", "texts": []}


def drawn(numbers: Sequence[int], count: int, seed: int) -> list[int]:
    """Episodes by chance, in a random order; the same of a seed.

    Raises:
        ValueError: there is none.
    """
    if not numbers:
        raise ValueError("no episode has an entry left, so there is nothing to mark.")
    return random.Random(seed).sample(list(numbers), min(count, len(numbers)))


def sheet_page(title: str, samples: Iterable[ShownSample]) -> str:
    """The HTML.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
    shown = list(samples)
    facts = {"format": FORMAT, "sheet": fingerprint(shown), "samples": len(shown)}
    return render_html(TEMPLATE, title=title, samples=shown, scores=SCORES, errors=list(ErrorType), facts=facts)


def fingerprint(samples: Sequence[ShownSample]) -> str:
    """Of what is to be marked, by which marks belong to a sheet."""
    texts = [[sample.episode, sample.instruction, repr(sample.annotation)] for sample in samples]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:KEPT]
