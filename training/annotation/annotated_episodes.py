"""Episodes with the entries of their annotations that passed the checks: what is written, and what was rejected."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from instructvla.training.annotation.annotation_journal import AnnotationJournal, Place, reply_at
from instructvla.training.annotation.answer_format import parse_answer
from instructvla.training.annotation.entry_checks import CheckSettings, Rejection, checked, without
from instructvla.training.annotation.near_duplicates import TextCounts
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.dataset_statistics import DescribedReader
from instructvla.training.data.episodes import Annotation, Episode

KINDS = {"questions": "questions", "rewritten": "rewritten commands", "contexts": "created contexts"}


@dataclass
class CheckedAnswers:
    """The usable answers of a journal after the checks.

    Attributes:
        places: episode's number → where its answer is.
        left_out: episode's number → kind and number of its entries that were rejected.
        entries: kind → how many are kept.
        annotated: number of episodes with an entry that is kept.
        reasons: kind and reason → how many entries were rejected for it.
        digest: of all that is kept.
    """

    places: dict[int, Place] = field(default_factory=dict)
    left_out: dict[int, frozenset[tuple[str, int]]] = field(default_factory=dict)
    entries: Counter[str] = field(default_factory=Counter)
    annotated: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    digest: str = ""

    @classmethod
    def of(cls, journal: AnnotationJournal, settings: CheckSettings, rejected: list[dict[str, Any]]) -> Self:
        """Check all answers, in the order of their episodes; rejections are added to `rejected` as JSON."""
        found, copies, digest = cls(), TextCounts(), hashlib.sha256()
        for episode, place in sorted(journal.answers.items()):
            reply = reply_at(place)
            result = checked(parse_answer(reply.text), reply.instruction, settings, copies)
            found._count(episode, place, result.annotation, result.rejections)
            digest.update(repr((episode, result.annotation)).encode("utf-8", "surrogatepass"))
            rejected += ({"episode": episode, **rejection.record()} for rejection in result.rejections)
        found.digest = digest.hexdigest()
        return found

    def annotation(self, episode: int) -> Annotation | None:
        """What is kept for an episode, or None."""
        if episode not in self.places:
            return None
        annotation = parse_answer(reply_at(self.places[episode]).text)
        annotation = without(annotation, self.left_out.get(episode, frozenset()))
        return None if annotation == Annotation() else annotation

    def _count(self, episode: int, place: Place, kept: Annotation, rejections: list[Rejection]) -> None:
        self.places[episode] = place
        if rejections:
            self.left_out[episode] = frozenset((rejection.kind, rejection.number) for rejection in rejections)
        self.annotated += kept != Annotation()
        self.entries["captions"] += kept.caption is not None
        for name, told in KINDS.items():
            self.entries[told] += len(getattr(kept, name))
        self.reasons.update((rejection.kind, rejection.reason) for rejection in rejections)


class AnnotatedEpisodes:
    """A reader's episodes with these annotations instead of their own; one that has no file path gets a name for one.

    Args:
        reader: of the episodes that were annotated.
        answers: what is kept of the answers about them.
        origin: JSON values that tell where the annotations come from.
    """

    def __init__(self, reader: DescribedReader, answers: CheckedAnswers, origin: Mapping[str, Any]):
        self.reader, self.answers, self.origin = reader, answers, dict(origin)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Episode:
        episode = self.reader[index]
        path = episode.file_path or f"{episode.dataset}/{episode.episode_id}"
        return replace(episode, annotation=self.answers.annotation(index), file_path=path)

    def without_pictures(self) -> "AnnotatedEpisodes":
        """The same episodes, of which nothing but texts and numbers is read."""
        plain = self.reader.without_pictures() if hasattr(self.reader, "without_pictures") else self.reader
        return AnnotatedEpisodes(plain, self.answers, self.origin)

    def annotated(self) -> Iterator[Episode]:
        """Those with an annotation, in order."""
        for number in sorted(self.answers.places):
            if (episode := self[number]).annotation is not None:
                yield episode

    @property
    def description(self) -> DatasetDescription:
        return self.reader.description

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from, and their annotations."""
        return {**self.reader.provenance, "annotation": {**self.origin, "kept": self.answers.digest}}

    @property
    def fingerprint(self) -> str:
        """Hash of where they come from."""
        return hashlib.sha256(json.dumps(self.provenance, sort_keys=True).encode()).hexdigest()
