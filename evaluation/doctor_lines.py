"""The lines that `instructvla doctor` prints: what is well, what is worth knowing, and findings with their remedy."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from instructvla.plain_files import listed

Kind = Literal["ok", "note", "skipped", "FINDING"]


@dataclass(frozen=True)
class Line:
    """One result of one check; `remedy` is what to do about a finding."""

    kind: Kind
    check: str
    text: str
    remedy: str | None = None

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.kind:<8} {self.check}: {on_one_line(self.text + remedy)}"


Lines = Iterator[Line]


def finding(check: str, text: str, remedy: str) -> Line:
    return Line("FINDING", check, text, remedy)


def on_one_line(text: object) -> str:
    return " ".join(str(text).split())


def named(names: Collection[str], limit: int = 4) -> str:
    """ "a, b, c, d and 308 more"."""
    return listed(names, limit)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
