"""What words mean on this table: nouns, shapes, tastes, needs and jobs, and which things each may be said of."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.scene import Placed, Scene
from instructvla.processing.action_normalization import nearest

PHRASES = Path(__file__).parent / "phrases"
SPLITS = ("train", "test")
ANYTHING = "thing"  # the noun that fits everything, receptacles and the drawer included
CABINET_COLOUR = "brown"


class Fit(IntEnum):
    """How well a word fits a thing; a listener thinks of what may fit, too."""

    NO = 0
    MAYBE = 1
    YES = 2


Kinded = tuple[str, str]  # item and colour
Predicate = Callable[[Placed], Fit]


@dataclass(frozen=True)
class Meaning:
    """What a word is said of: names of the catalogue. Called with a thing, it tells how well it fits."""

    fits: frozenset[str]
    maybe: frozenset[str] = frozenset()

    def __call__(self, placed: Placed) -> Fit:
        if placed.item in self.fits:
            return Fit.YES
        return Fit.MAYBE if placed.item in self.maybe else Fit.NO


@dataclass(frozen=True)
class Purpose:
    """A need or a job, with what meets it and its sentences."""

    meaning: Meaning
    sentences: Mapping[str, tuple[str, ...]]  # of each split
    facts: tuple[str, ...]  # questions about things in general
    something: str | None = None  # short for what meets it


@cache
def phrase_file(name: str) -> dict[str, Any]:
    """A file of `phrases/`, e.g. "words"."""
    return yaml.safe_load((PHRASES / f"{name}.yaml").read_text(encoding="utf-8"))


def as_meaning(entry: Mapping[str, Any], source: str) -> Meaning:
    """Of an entry {is: names, maybe: names}, or {all: true}.

    Raises:
        ValueError: a name that the catalogue doesn't have.
    """
    known = {**ITEMS, **RECEPTACLES}
    if entry.get("all"):
        return Meaning(frozenset({*known, DRAWER}))
    fits, maybe = frozenset(entry["is"]), frozenset(entry.get("maybe", ()))
    if unknown := sorted((fits | maybe) - set(known)):
        raise ValueError(f"{source}: the catalogue has no {', '.join(unknown)}; it has {', '.join(known)}")
    return Meaning(fits, maybe)


def meanings(file: str, section: str) -> dict[str, Meaning]:
    return {word: as_meaning(entry, f"{file}.yaml, {word}") for word, entry in phrase_file(file)[section].items()}


@cache
def nouns() -> dict[str, Meaning]:
    """Noun → what it is said of."""
    return meanings("words", "nouns")


@cache
def shapes() -> dict[str, Meaning]:
    return meanings("words", "shapes")


@cache
def tastes() -> dict[str, Meaning]:
    return meanings("words", "tastes")


@cache
def exclusions() -> dict[str, Meaning]:
    """What a need may leave out → what that stands for."""
    return {word: Meaning(frozenset(names)) for word, names in phrase_file("meanings")["exclusions"].items()}


@cache
def purposes(section: str) -> tuple[Purpose, ...]:
    """All "needs" or all "jobs"."""
    return tuple(
        Purpose(
            meaning=as_meaning(entry, f"meanings.yaml, {section}"),
            sentences={split: tuple(entry[split]) for split in SPLITS},
            facts=tuple(f"{question}?" for question in entry.get("facts", ())),
            something=entry.get("something"),
        )
        for entry in phrase_file("meanings")[section]
    )


def colour_is(colour: str) -> Predicate:
    """Things of a colour; of what `words.yaml` calls colourless nobody can be sure."""
    colourless = frozenset(phrase_file("words")["colourless"])

    def fit(placed: Placed) -> Fit:
        if placed.item in colourless:
            return Fit.MAYBE
        return Fit.YES if placed.colour == colour else Fit.NO

    return fit


def standing(scene: Scene) -> dict[str, Placed]:
    """Title → what a listener sees on the table: things, receptacles and the cabinet with the drawer."""
    cabinet = {} if scene.drawer is None else {DRAWER: Placed(DRAWER, CABINET_COLOUR, scene.cabinet)}
    return scene.titles() | cabinet


def fitting(scene: Scene, predicates: Iterable[Predicate]) -> tuple[list[str], list[str]]:
    """Titles that all predicates fit surely, and those that they may fit."""
    predicates = list(predicates)
    fits = {title: min(fit(placed) for fit in predicates) for title, placed in standing(scene).items()}
    return [title for title in fits if fits[title] is Fit.YES], [title for title in fits if fits[title] is Fit.MAYBE]


def only(scene: Scene, *predicates: Predicate) -> str | None:
    """Title of the one thing or receptacle that all predicates fit, if no other could be meant."""
    surely, perhaps = fitting(scene, predicates)
    return surely[0] if len(surely) == 1 and not perhaps else None


def sure_members(scene: Scene, predicate: Predicate) -> list[str]:
    """Titles that a predicate fits; none where it is unsure of any."""
    surely, perhaps = fitting(scene, [predicate])
    return [] if perhaps else surely


def listed(names: Iterable[str]) -> str:
    """ "a, b and c"."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@cache
def all_titles() -> dict[str, Kinded]:
    """Title → (item, colour) of everything that can stand on a table."""
    items = {**ITEMS, **RECEPTACLES}.values()
    pairs = ((item, colour) for item in items for colour in item.colours)
    return {
        f"{colour} {item.name}" if len(item.colours) > 1 else item.name: (item.name, colour) for item, colour in pairs
    }


def kinded(title: str, names: Container[str] | None = None) -> Kinded:
    """(item, colour) of a title such as "apple" or "red block".

    Args:
        names: of the items it may be; all by default.

    Raises:
        ValueError: if there is no such thing; the message gives the nearest title.
    """
    known = {known: pair for known, pair in all_titles().items() if names is None or pair[0] in names}
    if title not in known:
        raise ValueError(
            f"there is no {title!r}, the nearest is {nearest(str(title), list(known))!r}; there are {', '.join(known)}"
        )
    return known[title]


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
