"""A person's or a model's marks 0, 0.5 and 1 on annotations, and the rates that follow (paper appendix C.3).

A mark is 1 where no obvious error is found, 0.5 with minor errors, 0 if completely wrong. The success rate is the mean.
Its interval is Wilson's with the marks' sum as successes: a mark between 0 and 1 spreads less than a 0 or a 1 with the
same mean would, so that the interval is too wide rather than too narrow, and it has a width where all marks are 1.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import combinations
from statistics import fmean
from typing import Any, Self

from instructvla.evaluation.intervals import Rate, wilson_interval
from instructvla.model_card import markdown_table
from instructvla.training.annotation.annotation_check import NAMES
from instructvla.training.annotation.category_agreement import Agreement

FORMAT = "instructvla-annotation-marks"  # of files of marks
SCORES = (0, 0.5, 1)
SAMPLE = "sample"  # a mark on all entries of an episode together, as the paper's
PAPER = {"with instruction": 95.4, "without": 45.0}  # Table 9, in %, of 100 samples each


class ErrorType(StrEnum):
    """What is wrong with an entry: the paper's Table 10, and what else there is."""

    IGNORED_CONTEXT = "Ignore Vision Context"
    REVERSED_ORDER = "Reverse Temporal Order"
    HALLUCINATION = "Minor Object Hallucination"
    OTHER_TASK = "Another Object, Place or Action"
    AMBIGUOUS = "Fits Several Objects"
    GIVEN_AWAY = "Answer Given Away"
    LANGUAGE = "Language"
    OTHER = "Other"


PAPER_ERRORS = {  # Table 10, in %
    ErrorType.IGNORED_CONTEXT: 32.5,
    ErrorType.REVERSED_ORDER: 10.2,
    ErrorType.HALLUCINATION: 5.7,
}


@dataclass(frozen=True)
class Mark:
    """
    Args:
        episode: its number in the dataset.
        entry: "sample", or kind and number, such as "cr/0".
        score: 0, 0.5 or 1.
        error: what is wrong; None where nothing is, or it was not told.
    """

    episode: int
    entry: str
    score: float
    error: ErrorType | None = None

    @property
    def kind(self) -> str:
        return self.entry.partition("/")[0]

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """From JSON.

        Raises:
            ValueError: another score, error or kind than there are.
        """
        episode, entry, score, error = (record.get(name) for name in ("episode", "entry", "score", "error"))
        if score not in SCORES or isinstance(score, bool):
            raise ValueError(f"a score is {score!r}, but must be one of {', '.join(map(str, SCORES))}")
        if not isinstance(episode, int) or str(entry).partition("/")[0] not in (SAMPLE, *NAMES):
            raise ValueError(f"a mark is on {entry!r} of episode {episode!r}, which names no entry")
        if error is not None and error not in list(ErrorType):
            raise ValueError(f"an error is {error!r}, but must be one of {', '.join(ErrorType)}")
        return cls(episode, str(entry), float(score), None if error is None else ErrorType(error))

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def success_rate(scores: Sequence[float]) -> str:
    """The mean with its interval, in %."""
    if not scores:
        return "–"
    low, high = wilson_interval(sum(scores), len(scores))
    return f"{100 * fmean(scores):.1f} % [{100 * low:.1f}–{100 * high:.1f}]"


def rates_table(marks: Sequence[Mark]) -> str:
    """Markdown: success rates of whole samples and of each kind of entry, as Table 9 has them, and the paper's."""
    rows: list[list[Any]] = []
    for kind, name in {SAMPLE: "whole samples", **{str(kind): name for kind, name in NAMES.items()}}.items():
        scores = [mark.score for mark in marks if mark.kind == kind]
        if scores:
            right, usable = (Rate(sum(score >= least for score in scores), len(scores)) for least in (1, 0.5))
            rows.append([name, len(scores), success_rate(scores), str(right), str(usable)])
    rows += [[f"paper, {name}", 100, f"{rate:.1f} %", None, None] for name, rate in PAPER.items()]
    return markdown_table(["", "marked", "success rate", "marked 1", "marked 0.5 or 1"], rows)


def errors_table(marks: Sequence[Mark]) -> str:
    """Markdown: how the errors of all marks below 1 are distributed, as Table 10, and the paper's."""
    faulty = [mark for mark in marks if mark.score < 1]
    counts: Counter[ErrorType | None] = Counter(mark.error for mark in faulty)
    named = [*ErrorType, None]
    rows = [
        [
            "not told" if error is None else str(error),
            counts[error],
            str(Rate(counts[error], len(faulty))),
            f"{PAPER_ERRORS[error]} %" if error in PAPER_ERRORS else None,
        ]
        for error in named
        if counts[error] or error in PAPER_ERRORS
    ]
    return markdown_table(["error", "marks", "share of the marks below 1", "paper"], rows)


def pooled(markers: Iterable[Sequence[Mark]]) -> list[Mark]:
    """One mark for each entry: the mean of all, with the error that most named."""
    by_entry: dict[tuple[int, str], list[Mark]] = defaultdict(list)
    for marks in markers:
        for mark in marks:
            by_entry[mark.episode, mark.entry].append(mark)
    return [
        Mark(*place, fmean(mark.score for mark in given), commonest(mark.error for mark in given))
        for place, given in by_entry.items()
    ]


def commonest(errors: Iterable[ErrorType | None]) -> ErrorType | None:
    counts = Counter(error for error in errors if error is not None)
    return counts.most_common(1)[0][0] if counts else None


def agreement_lines(markers: Mapping[str, Sequence[Mark]]) -> Iterator[str]:
    """For each two markers, on what both have marked: how often they agree, and Cohen's kappa (unweighted)."""
    for (first, given), (second, others) in combinations(markers.items(), 2):
        known = {(mark.episode, mark.entry): mark.score for mark in given}
        pairs = [
            (known[mark.episode, mark.entry], mark.score) for mark in others if (mark.episode, mark.entry) in known
        ]
        if not pairs:
            yield f"{first} and {second} have marked nothing in common"
            continue
        found = Agreement.of(pairs)
        yield f"{first} and {second}: the same mark on {found.rate} of {len(pairs)}; Cohen's kappa {found.kappa_text}"
