"""All annotations of a dataset through the checks of `entry_checks.py`: what is kept, what is rejected, and why."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from instructvla.model_card import markdown_table
from instructvla.training.annotation.annotation_texts import EpisodeTexts
from instructvla.training.annotation.entry_checks import FIELDS, CheckSettings, Kind, Rejection, checked
from instructvla.training.annotation.near_duplicates import TextCounts
from instructvla.training.data.episodes import Annotation, BadEpisodeError

NAMES = {
    Kind.CAPTION: "captions",
    Kind.QUESTION: "questions",
    Kind.REWRITTEN: "rewritten commands",
    Kind.CONTEXT: "created contexts",
}
Places = frozenset[tuple[str, int]]  # kind and number of entries


@dataclass
class AnnotationCheck:
    """What became of a dataset's annotations; episodes are numbered from 0 in the order in which they came.

    Attributes:
        episodes: how many there are.
        annotated: numbers of those with an annotation.
        instructed: how many of these have an instruction, with which entries are compared.
        unreadable: number → why.
        entries: kind → how many there were.
        reasons: kind and reason → how many were rejected for it.
        lacking: kind → how many annotated episodes have no entry of it left.
        left_out: number → its rejected entries.
        emptied: numbers of those of which the rules leave nothing.
    """

    episodes: int = 0
    annotated: list[int] = field(default_factory=list)
    instructed: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    entries: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    left_out: dict[int, Places] = field(default_factory=dict)
    emptied: set[int] = field(default_factory=set)

    def run(
        self, texts: Iterable[EpisodeTexts | BadEpisodeError], settings: CheckSettings
    ) -> Iterator[tuple[int, Rejection]]:
        """Check what is said of each episode; the rejections, as they come, with the episode's number."""
        copies = TextCounts()
        for number, one in enumerate(texts):
            self.episodes += 1
            if isinstance(one, BadEpisodeError):
                self.unreadable[number] = str(one)
            elif one.annotation is not None:
                found = checked(one.annotation, one.instruction, settings, copies)
                self._count(number, one, found.annotation)
                yield from ((number, rejection) for rejection in found.rejections)
                self.reject(number, found.rejections)

    def reject(self, number: int, rejections: Iterable[Rejection]) -> None:
        """Leave entries of an episode out."""
        for rejection in rejections:
            self.reasons[rejection.kind, rejection.reason] += 1
            place = (str(rejection.kind), rejection.number)
            self.left_out[number] = self.left_out.get(number, frozenset()) | {place}

    @property
    def usable(self) -> list[int]:
        """Numbers of the episodes of whose annotation something is left."""
        return [number for number in self.annotated if number not in self.emptied]

    @property
    def rejected(self) -> int:
        """How many entries."""
        return self.reasons.total()

    def _count(self, number: int, one: EpisodeTexts, kept: Annotation) -> None:
        self.annotated.append(number)
        if kept == Annotation():
            self.emptied.add(number)
        self.instructed += one.instruction is not None
        for kind in Kind:
            self.entries[kind] += len(entries_of(one.annotation, kind))
            self.lacking[kind] += not entries_of(kept, kind)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "episodes": self.episodes,
            "annotated": len(self.annotated),
            "instructed": self.instructed,
            "unreadable": {str(number): reason for number, reason in self.unreadable.items()},
            "entries": {str(kind): self.entries[kind] for kind in Kind},
            "rejected": [
                {"kind": str(kind), "reason": str(reason), "entries": count}
                for (kind, reason), count in sorted(self.reasons.items())
            ],
            "episodes_lacking": {str(kind): self.lacking[kind] for kind in Kind},
        }

    def summary(self) -> str:
        """For a person: how many entries of each kind are rejected, and for which reasons."""
        reasons = sorted({reason for _, reason in self.reasons}, key=lambda reason: -self._rejected(reason=reason))
        rows = [["entries", *(self.entries[kind] for kind in Kind), self.entries.total()]]
        rows += [self._row(reason) for reason in reasons]
        rows.append(["rejected", *map(self._share, Kind), share(self.rejected, self.entries.total())])
        rows.append(["episodes without any left", *(self.lacking[kind] for kind in Kind), None])
        annotated = len(self.annotated)
        lines = [f"{annotated:,} of {self.episodes:,} episodes are annotated"]
        if self.unreadable:
            number, reason = next(iter(self.unreadable.items()))
            lines.append(f"{len(self.unreadable):,} can't be read, such as {number}: {reason}")
        if self.instructed < annotated:
            lines.append(f"{annotated - self.instructed:,} have no instruction, with which entries could be compared")
        return "\n".join([*lines, "", markdown_table(["", *NAMES.values(), "all"], rows)])

    def _row(self, reason: str) -> list[Any]:
        return [str(reason), *(self.reasons[kind, reason] for kind in Kind), self._rejected(reason=reason)]

    def _rejected(self, *, reason: str | None = None, kind: str | None = None) -> int:
        return sum(
            count
            for (of_kind, for_reason), count in self.reasons.items()
            if kind in (None, of_kind) and reason in (None, for_reason)
        )

    def _share(self, kind: Kind) -> str:
        return share(self._rejected(kind=kind), self.entries[kind])


def entries_of(annotation: Annotation, kind: Kind) -> tuple[Any, ...]:
    """The caption as the only one of its kind, or the turns."""
    if kind is Kind.CAPTION:
        return () if annotation.caption is None else (annotation.caption,)
    return getattr(annotation, FIELDS[kind])


def share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "–"
