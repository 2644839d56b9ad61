"""The HTML page of an analysis: numbers, plots and words; it needs nothing from elsewhere and loads nothing."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from instructvla.training.annotation.annotation_census import ALL, COMMANDS, ORIGINAL, Census
from instructvla.training.annotation.command_words import word_list
from instructvla.training.data.html_page import render_html

TEMPLATE = Path(__file__).parent / "analysis.html.jinja"
MOST_WORDS, LONGEST_SHORT = 90, 2  # that are shown; letters of a word that is left out
SMALLEST, LARGEST = 0.8, 2.6  # rem
ABOUT = {
    "categories": (
        "Categories of appendix C.1",
        "Rewritten commands and created contexts on the left, questions on the right; by rules.",
    ),
    "verbs_and_nouns": (
        "Verbs and their nouns",
        "The first command of each instruction: verbs inside, the commonest nouns that they act on outside.",
    ),
    "vocabulary": ("Growth of the vocabulary", "How many different words the texts have brought after so many words."),
}


class SizedWord(NamedTuple):
    """A word, with its size in rem by how frequent it is."""

    text: str
    size: float
    is_new: bool


def render_page(
    title: str, census: Census, svgs: Mapping[str, bytes], notes: Sequence[str] = (), agreement: str = ""
) -> str:
    """The page.

    Args:
        title: of the page.
        census: counts of the annotations.
        svgs: name in `ABOUT` → plot.
        notes: what was left out, in words.
        agreement: of rules and model, in lines; empty where no model was asked.
    """
    return render_html(
        TEMPLATE,
        title=title,
        facts=facts(census),
        notes=list(notes),
        plots=[
            {"title": ABOUT[name][0], "about": ABOUT[name][1], "svg": base64.b64encode(svg).decode()}
            for name, svg in svgs.items()
        ],
        words=list(sized_words(census)),
        has_originals=bool(census.instructed),
        vocabularies=list(vocabulary_rows(census)),
        agreement=agreement,
    )


def facts(census: Census) -> dict[str, str]:
    """Name → number, of the dataset as a whole."""
    numbers = {
        "episodes": census.episodes,
        "with an instruction": census.instructed,
        "annotated": census.annotated,
        "captions": census.entries["captions"],
        "questions": census.entries["questions"],
        "rewritten commands": census.entries["rewritten"],
        "created contexts": census.entries["contexts"],
    }
    return {name: f"{number:,}" for name, number in numbers.items()}


def sized_words(census: Census) -> Iterator[SizedWord]:
    """The commonest words that carry meaning, in alphabetical order."""
    left_out = word_list("boundaries") | word_list("fillers") | word_list("function_words")
    telling = [
        (word, count)
        for word, count in census.vocabularies[ALL].counts.most_common(5 * MOST_WORDS)
        if word not in left_out and len(word) > LONGEST_SHORT
    ][:MOST_WORDS]
    most = telling[0][1] if telling else 1
    known = census.vocabularies[ORIGINAL].counts
    for word, count in sorted(telling):
        size = SMALLEST + (LARGEST - SMALLEST) * (count / most) ** 0.5
        yield SizedWord(word, round(size, 2), bool(census.instructed) and word not in known)


def vocabulary_rows(census: Census) -> Iterator[dict[str, Any]]:
    """Corpus, words, different words, and how much of them the original instructions lack."""
    for name, vocabulary in census.vocabularies.items():
        if vocabulary.tokens:
            row = {"name": name, "tokens": f"{vocabulary.tokens:,}", "types": f"{len(vocabulary.counts):,}"}
            yield row | {"new": new_words_text(census, name)}


def new_words_text(census: Census, name: str) -> str:
    if name == ORIGINAL or not census.instructed:
        return "–"
    types, tokens = census.vocabularies[name].new_words(census.vocabularies[ORIGINAL])
    return f"{100 * types:.1f} % of the different words, {100 * tokens:.1f} % of all"


def summary_lines(census: Census) -> Iterator[str]:
    """The analysis for a terminal."""
    yield ", ".join(f"{number} {name}" for name, number in facts(census).items())
    for kind, counts in (
        ("instructions", census.instruction_categories),
        ("questions", census.question_categories),
    ):
        for category, count in counts.most_common():
            yield f"  {kind:<13}{category:<30}{count:>9,}  {100 * count / counts.total():5.1f} %"
    for name, counts in census.commands.items():
        if read := counts.total() + census.without_command[name]:
            pairs = ", ".join(f"{verb} {noun or '–'} {count:,}" for (verb, noun), count in counts.most_common(5))
            share = 100 * counts.total() / read
            yield f"{name}: verb found in {share:.1f} % of {read:,}, {len(counts):,} verb–noun pairs: {pairs}"
    for row in vocabulary_rows(census):
        yield f"{row['name']}: {row['tokens']} words, {row['types']} different, new: {row['new']}"


def record(census: Census) -> dict[str, Any]:
    """The counts as JSON."""
    return {
        "episodes": census.episodes,
        "instructed": census.instructed,
        "annotated": census.annotated,
        "entries": dict(census.entries),
        "instruction_categories": dict(census.instruction_categories),
        "question_categories": dict(census.question_categories),
        "without_command": {name: census.without_command[name] for name in (ORIGINAL, COMMANDS)},
        "verbs_and_nouns": {
            name: [[*pair, count] for pair, count in counts.most_common()] for name, counts in census.commands.items()
        },
        "vocabulary": {
            name: {"tokens": vocabulary.tokens, "types": len(vocabulary.counts), "curve": vocabulary.points()}
            for name, vocabulary in census.vocabularies.items()
        },
    }
