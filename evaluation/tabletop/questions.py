"""Questions about a view and their answers (QA of the paper's section 4.1), by appendix C.1's categories."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, zip_longest
from typing import NamedTuple

import numpy as np

from instructvla.evaluation.tabletop.catalogue import COLOURS, DRAWER, Kind
from instructvla.evaluation.tabletop.fillings import FLAT
from instructvla.evaluation.tabletop.meanings import (
    ANYTHING,
    Fit,
    Predicate,
    colour_is,
    fitting,
    listed,
    nouns,
    phrase_file,
    purposes,
    shapes,
    standing,
    with_article,
)
from instructvla.evaluation.tabletop.references import (
    APART,
    NEAR,
    NEARER,
    SIDES,
    TASTED,
    distance,
    is_beside,
    rightness,
)
from instructvla.evaluation.tabletop.scene import item_of
from instructvla.evaluation.tabletop.view import Point, View
from instructvla.training.annotation.categories import Category

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DENIALS = ("no ", "nothing ")
POINT_APART = 0.06  # of the picture's width: as `APART` on the table


@dataclass(frozen=True)
class Fact:
    """Something true that can be asked.

    Args:
        kind: of question, a section of `questions.yaml`.
        slots: what the question names.
        answer: in words.
    """

    kind: str
    slots: dict[str, str]
    answer: str

    @property
    def category(self) -> Category:
        return KINDS[self.kind]


class LabelledTurn(NamedTuple):
    """A question, or an instruction, its answer, and its category in appendix C.1."""

    category: Category
    question: str
    answer: str


KINDS = {
    "count": Category.QUANTITATIVE_IDENTIFICATION,
    "count_colour": Category.QUANTITATIVE_IDENTIFICATION,
    "place": Category.SPATIAL_IDENTIFICATION,
    "at_place": Category.SPATIAL_IDENTIFICATION,
    "beside": Category.SPATIAL_IDENTIFICATION,
    "outermost": Category.SPATIAL_IDENTIFICATION,
    "neighbour": Category.SPATIAL_IDENTIFICATION,
    "colour": Category.VISUAL_IDENTIFICATION,
    "which_colour": Category.VISUAL_IDENTIFICATION,
    "which_shape": Category.VISUAL_IDENTIFICATION,
    "members": Category.VISUAL_IDENTIFICATION,
    "exists": Category.VISUAL_IDENTIFICATION,
    "shape": Category.VISUAL_IDENTIFICATION,
    "twin": Category.VISUAL_IDENTIFICATION,
    "kind": Category.COMMONSENSE_ANSWERING,
    "need": Category.COMMONSENSE_ANSWERING,
    "job": Category.COMMONSENSE_ANSWERING,
    "fact": Category.COMMONSENSE_ANSWERING,
    "empty": Category.STATE_IDENTIFICATION,
    "free": Category.STATE_IDENTIFICATION,
    "drawer": Category.STATE_IDENTIFICATION,
    "support": Category.STATE_IDENTIFICATION,
}


def caption(view: View) -> str:
    """What lies there, from left to right, and the drawer: "an apple, a sponge and a white bowl."."""
    names = [with_article(title) for title in view.in_order(sorted(view.visible))]
    if view.scene.drawer is not None:
        names.append(with_article(f"{view.drawer} {DRAWER}") if view.drawer else with_article(DRAWER))
    return f"{listed(names)}."


def facts(view: View, split: str) -> list[Fact]:
    """All that can be asked of a view."""
    makers = (
        count_facts, colour_facts, shape_facts, member_facts, place_facts, relation_facts, sense_facts, state_facts
    )  # fmt: skip
    made = (fact for maker in makers for fact in maker(view))
    return [*made, *need_facts(view, split)]


def draw_questions(found: list[Fact], split: str, number: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(question, answer) of up to `number` facts, drawn as `draw_facts` does."""
    return [(asked(fact, split, rng), fact.answer) for fact in draw_facts(found, number, rng)]


def draw_facts(found: list[Fact], number: int, rng: np.random.Generator) -> list[Fact]:
    """Up to `number` facts, as evenly over the kinds of question as there are any."""
    by_kind: dict[str, list[Fact]] = {kind: [] for kind in rng.permutation(sorted({fact.kind for fact in found}))}
    for index in rng.permutation(len(found)):
        by_kind[found[index].kind].append(found[index])
    rounds = zip_longest(*map(with_as_many_denied, by_kind.values()))
    return [fact for round_ in rounds for fact in round_ if fact is not None][:number]


def with_as_many_denied(found: list[Fact]) -> list[Fact]:
    """Without what is denied beyond the number of what isn't: most words fit nothing in a picture."""
    denied = [fact for fact in found if fact.answer.startswith(DENIALS)]
    spare = denied[max(1, len(found) - len(denied)) :]
    return [fact for fact in found if fact not in spare]


def asked(fact: Fact, split: str, rng: np.random.Generator) -> str:
    """The fact's question in one of its forms."""
    forms = phrase_file("questions")[split][fact.kind]
    return forms[rng.integers(len(forms))].format(**fact.slots)


def members(view: View, *predicates: Predicate) -> list[str] | None:
    """Titles that all predicates fit, from left to right; None where one can't be sure or see them all."""
    surely, perhaps = fitting(view.scene, predicates)
    return None if perhaps or not view.visible.issuperset(surely) else view.in_order(surely)


def named(titles: list[str]) -> str:
    """ "the apple and the fork."."""
    return f"{listed(f'the {title}' for title in titles)}."


def count_facts(view: View) -> Iterator[Fact]:
    plurals = phrase_file("words")["plurals"]
    for noun, plural in plurals.items():
        if (found := members(view, nouns()[noun])) is not None:
            yield Fact("count", {"nouns": plural}, f"{NUMBERS[len(found)]} {noun if len(found) == 1 else plural}.")
    for colour in COLOURS:
        found = members(view, colour_is(colour))
        if found is not None:
            things = "thing" if len(found) == 1 else "things"
            yield Fact("count_colour", {"colour": colour}, f"{NUMBERS[len(found)]} {colour} {things}.")


def colour_facts(view: View) -> Iterator[Fact]:
    titles = view.scene.titles()
    for title in sorted(view.visible):
        placed = titles[title]
        is_such = colour_is(placed.colour)
        if is_such(placed) is not Fit.YES:
            continue
        if not title.startswith(placed.colour) or len(item_of(placed).colours) == 1:
            yield Fact("colour", {"title": title}, f"{placed.colour}.")
        for noun, meaning in nouns().items():
            if members(view, meaning, is_such) == [title] and title != f"{placed.colour} {noun}":
                yield Fact("which_colour", {"noun": noun, "colour": placed.colour}, f"the {title}.")


def shape_facts(view: View) -> Iterator[Fact]:
    titles = view.scene.titles()
    for shape, meaning in shapes().items():
        for title in sorted(view.visible):
            if meaning(titles[title]) is Fit.YES:
                yield Fact("shape", {"title": title}, f"{shape}.")
        for noun in (*TASTED, ANYTHING):
            if (found := members(view, nouns()[noun], meaning)) is not None and len(found) == 1:
                yield Fact("which_shape", {"noun": noun, "shape": shape}, named(found))


def member_facts(view: View) -> Iterator[Fact]:
    plurals = phrase_file("words")["plurals"]
    for noun, plural in plurals.items():
        if (found := members(view, nouns()[noun])) is None:
            continue
        answer = f"yes, {named(found)}" if found else f"no {noun}."
        yield Fact("exists", {"noun": noun}, answer)
        if found:
            yield Fact("members", {"nouns": plural}, named(found))
        if len(found) == 2:
            yield from (Fact("twin", {"noun": noun, "twin": a}, f"the {b}.") for a, b in permutations(found))


def place_facts(view: View) -> Iterator[Fact]:
    for title, point in view.points.items():
        yield Fact("place", {"title": title}, f"the {title} is at {grid_place(point)}.")
        yield Fact("at_place", {"place": grid_place(point)}, f"the {title}.")


def grid_place(point: Point, digits: int = 2) -> str:
    """Column and row of a point as numbers with leading zeros, from the upper left: "34 07"."""
    return " ".join(f"{int(value * 10**digits):0{digits}d}" for value in point)


def relation_facts(view: View) -> Iterator[Fact]:
    titles = view.scene.titles()
    still = [title for title in view.in_order(sorted(view.resting & view.visible)) if title in titles]
    for title, other in permutations(still, 2):
        if is_clearly(view, title, other):
            side = SIDES[rightness(titles[title]) > rightness(titles[other])]
            yield Fact("beside", {"title": title, "other": other}, f"{side}.")
    if view.resting.issuperset(titles) and len(still) > 1:
        cabinet = [standing(view.scene)[DRAWER]] if view.scene.drawer is not None else []
        for side, last, next_to_last in (("left", still[0], still[1]), ("right", still[-1], still[-2])):
            inside = all(is_beside(titles[last], one, side) for one in cabinet)
            if inside and is_clearly(view, last, next_to_last):
                yield Fact("outermost", {"side": side}, f"the {last}.")
    if view.resting.issuperset(titles):
        yield from neighbour_facts(view)


def is_clearly(view: View, title: str, other: str) -> bool:
    """Whether two things stand clearly beside each other, on the table and, where known, in the picture."""
    titles = view.scene.titles()
    apart = rightness(titles[title]) - rightness(titles[other])
    if title not in view.points or other not in view.points:
        return abs(apart) > APART
    seen = view.points[title][0] - view.points[other][0]
    return abs(apart) > APART and abs(seen) > POINT_APART and apart * seen > 0


def neighbour_facts(view: View) -> Iterator[Fact]:
    titles = standing(view.scene)
    for title, placed in view.scene.titles().items():
        near = sorted((distance(placed, titles[other]), other) for other in titles if other != title)
        alone = len(near) == 1 or (len(near) > 1 and near[0][0] + NEARER < near[1][0])
        if alone and near[0][0] < NEAR:
            yield Fact("neighbour", {"title": title}, f"the {near[0][1]}.")


def sense_facts(view: View) -> Iterator[Fact]:
    """What kind of thing each is, and what answers general questions here."""
    titles = view.scene.titles()
    for title in sorted(view.visible):
        if (kind := item_of(titles[title]).kind) not in (Kind.RECEPTACLE, Kind.LETTER):
            word = {Kind.TABLEWARE: "utensil" if titles[title].item != "cup" else "drinking cup", Kind.BLOCK: "toy"}
            yield Fact("kind", {"title": title}, f"{with_article(word.get(kind, kind))}.")
    for purpose in (*purposes("needs"), *purposes("jobs")):
        found = members(view, purpose.meaning)
        if found is not None:
            answer = named(found) if found else "nothing here."
            yield from (Fact("fact", {"question": question}, answer) for question in purpose.facts)


def need_facts(view: View, split: str) -> Iterator[Fact]:
    """Needs and jobs that one thing alone meets here."""
    for kind, slot, section in (("need", "need", "needs"), ("job", "job", "jobs")):
        for purpose in purposes(section):
            found = members(view, purpose.meaning)
            if found is not None and len(found) == 1:
                yield from (Fact(kind, {slot: words}, named(found)) for words in purpose.sentences[split])


def state_facts(view: View) -> Iterator[Fact]:
    titles = view.scene.titles()
    if view.drawer:
        yield Fact("drawer", {}, f"the drawer is {view.drawer}.")
    for title in sorted(view.empty):
        flat = titles[title].item in FLAT
        yield Fact("free" if flat else "empty", {"title": title}, f"the {title} is {'free' if flat else 'empty'}.")
    places = [f"{'on' if titles[title].item in FLAT else 'in'} the {title}" for title in sorted(view.empty)]
    for title, support in sorted(view.supports.items()):
        for place in places:
            into = support == DRAWER or (support in titles and titles[support].item not in FLAT)
            yield Fact("support", {"title": title, "elsewhere": place}, f"{'in' if into else 'on'} the {support}.")
