"""Words that point at one thing of a scene without its name: attributes and relations (Complex Object Referencing)."""

from collections.abc import Iterator
from string import Formatter

from instructvla.evaluation.tabletop.meanings import (
    ANYTHING,
    Fit,
    colour_is,
    nouns,
    only,
    phrase_file,
    shapes,
    standing,
    sure_members,
    tastes,
)
from instructvla.evaluation.tabletop.scene import Placed, Scene

APART = 0.08  # m; less is neither clearly left nor clearly right
NEAR = 0.25  # m between centres; more is not next to each other
NEARER = 0.05  # m that a neighbour must be nearer than the next one
TASTED = ("fruit", "vegetable", "food")  # what tastes and shapes are said of
SIDES = ("left", "right")

Filling = dict[str, str]  # slot → words


def slots(template: str) -> set[str]:
    """Names in braces."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def references(scene: Scene, target: str, split: str, unnamed: str | None = None) -> list[str]:
    """All descriptions of a split's forms that fit the target alone, such as "long yellow fruit", without "the".

    Args:
        target: title of a thing.
        split: "train" or "test".
        unnamed: title of what no description names, such as where the target goes.
    """
    placed = scene.titles()[target]
    found = []
    for template in phrase_file("attributes")["references"][split]:
        for noun, meaning in nouns().items():
            if meaning(placed) is Fit.YES:
                fillings = described(scene, target, noun, slots(template))
                words = [template.format(**filling) for filling in fillings if unnamed not in filling.values()]
                found += [text for text in words if text != target]
    return list(dict.fromkeys(found))


def described(scene: Scene, target: str, noun: str, names: set[str]) -> Iterator[Filling]:
    """Fillings of the slots by which the noun points at the target alone."""
    if "neighbour" in names:
        yield from ({"noun": noun, "neighbour": other} for other in neighbours(scene, target, noun))
    elif "other" in names:
        yield from ({"noun": noun, "side": side, "other": other} for side, other in sides_of(scene, target, noun))
    elif "side" in names:
        yield from ({"noun": noun, "side": side} for side in outermost(scene, target, noun))
    else:
        yield from attributes(scene, target, noun, names - {"noun"})


def attributes(scene: Scene, target: str, noun: str, names: set[str]) -> Iterator[Filling]:
    """By colour, shape and taste, or by the noun alone."""
    placed = scene.titles()[target]
    choices = {
        "colour": {placed.colour: colour_is(placed.colour)},
        "shape": {word: shape for word, shape in shapes().items() if noun in (*TASTED, ANYTHING)},
        "taste": {word: taste for word, taste in tastes().items() if noun in TASTED},
    }
    fillings: list[tuple[Filling, list]] = [({"noun": noun}, [nouns()[noun]])]
    for name in sorted(names):
        fillings = [
            ({**filling, name: word}, [*predicates, predicate])
            for filling, predicates in fillings
            for word, predicate in choices[name].items()
        ]
    for filling, predicates in fillings:
        if only(scene, *predicates) == target:
            yield filling


def outermost(scene: Scene, target: str, noun: str) -> list[str]:
    """The sides on which the target is the last of all that the noun fits."""
    titles = standing(scene)
    others = [titles[title] for title in sure_members(scene, nouns()[noun]) if title != target]
    if not others:
        return []
    return [side for side in SIDES if all(is_beside(titles[target], other, side) for other in others)]


def sides_of(scene: Scene, target: str, noun: str) -> Iterator[tuple[str, str]]:
    """(side, other): the target is the only one of the noun on that side of another thing."""
    titles = standing(scene)
    members = sure_members(scene, nouns()[noun])
    for other in scene.titles():
        rest = [title for title in members if title not in (target, other)]
        if other == target or target not in members or not rest:
            continue
        for side, opposite in (SIDES, SIDES[::-1]):
            if is_beside(titles[target], titles[other], side) and all(
                is_beside(titles[title], titles[other], opposite) for title in rest
            ):
                yield side, other


def neighbours(scene: Scene, target: str, noun: str) -> list[str]:
    """Things next to which, of all that the noun fits, stands the target."""
    titles = standing(scene)
    members = sure_members(scene, nouns()[noun])
    found = []
    for other in scene.titles():
        rest = [title for title in members if title not in (target, other)]
        near = distance(titles[target], titles[other])
        if other != target and target in members and rest and near < NEAR:
            nearest = min(distance(titles[title], titles[other]) for title in rest)
            found += [other] if near + NEARER < nearest else []
    return found


def is_beside(placed: Placed, other: Placed, side: str) -> bool:
    """Whether a thing stands clearly left or right of another one, as the front camera sees them."""
    apart = rightness(placed) - rightness(other)
    return apart > APART if side == "right" else apart < -APART


def rightness(placed: Placed) -> float:
    """How far right the front camera, which looks at the robot, sees a thing, in m."""
    return placed.position[1]


def distance(placed: Placed, other: Placed) -> float:
    (x, y), (other_x, other_y) = placed.position, other.position
    return ((x - other_x) ** 2 + (y - other_y) ** 2) ** 0.5
