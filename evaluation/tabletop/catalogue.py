"""What can stand on the table: names, kinds and the facts that language may rely on. Shapes are in `shapes`."""

from dataclasses import dataclass
from enum import StrEnum

COLOURS = {
    "red": (0.80, 0.10, 0.10),
    "green": (0.10, 0.55, 0.18),
    "blue": (0.10, 0.25, 0.80),
    "yellow": (0.95, 0.80, 0.10),
    "purple": (0.48, 0.15, 0.60),
    "orange": (0.95, 0.45, 0.05),
    "white": (0.93, 0.93, 0.93),
    "black": (0.10, 0.10, 0.10),
    "pink": (0.95, 0.55, 0.70),
    "brown": (0.42, 0.25, 0.12),
    "gray": (0.55, 0.55, 0.57),
}


class Kind(StrEnum):
    """The families of things that instructions speak of."""

    FRUIT = "fruit"
    VEGETABLE = "vegetable"
    DRINK = "drink"
    TOOL = "tool"
    TABLEWARE = "tableware"
    LETTER = "letter"
    BLOCK = "block"
    RECEPTACLE = "receptacle"


@dataclass(frozen=True)
class Item:
    """A kind of thing.

    Args:
        name: as English says it; unique.
        kind: its family.
        colours: names of `COLOURS` it comes in; of a thing with several, the colour is a part of its name in a scene.
        facts: what common sense says of it, words for situated instructions: what it is for, how it tastes.
        seen: whether training episodes handle it; the others stand in training scenes' captions and questions only.
    """

    name: str
    kind: Kind
    colours: tuple[str, ...]
    facts: frozenset[str] = frozenset()
    seen: bool = True


def _item(name: str, kind: Kind, colours: str, facts: str = "", seen: bool = True) -> Item:
    return Item(name, kind, tuple(colours.split()), frozenset(facts.split()), seen)


ITEMS = {
    item.name: item
    for item in (
        _item("apple", Kind.FRUIT, "red", "food sweet round"),
        _item("banana", Kind.FRUIT, "yellow", "food sweet long"),
        _item("orange", Kind.FRUIT, "orange", "food juicy round"),
        _item("lemon", Kind.FRUIT, "yellow", "food sour round"),
        _item("plum", Kind.FRUIT, "purple", "food sweet round", seen=False),
        _item("carrot", Kind.VEGETABLE, "orange", "food crunchy long"),
        _item("tomato", Kind.VEGETABLE, "red", "food salad round"),
        _item("cucumber", Kind.VEGETABLE, "green", "food salad long", seen=False),
        _item("water bottle", Kind.DRINK, "blue", "drink water"),
        _item("cola can", Kind.DRINK, "red", "drink soda"),
        _item("lemonade can", Kind.DRINK, "green", "drink soda"),
        _item("milk carton", Kind.DRINK, "white", "drink milk"),
        _item("juice box", Kind.DRINK, "orange", "drink juice", seen=False),
        _item("sponge", Kind.TOOL, "yellow", "clean wipe soft"),
        _item("hammer", Kind.TOOL, "brown", "build nail"),
        _item("screwdriver", Kind.TOOL, "red", "build screw"),
        _item("marker", Kind.TOOL, "black", "write draw"),
        _item("brush", Kind.TOOL, "blue", "paint", seen=False),
        _item("spoon", Kind.TABLEWARE, "gray", "soup stir"),
        _item("fork", Kind.TABLEWARE, "gray", "salad pasta"),
        _item("knife", Kind.TABLEWARE, "gray", "cut sharp"),
        _item("cup", Kind.TABLEWARE, "white pink", "pour coffee", seen=False),
        _item("letter A", Kind.LETTER, "white", "first vowel"),
        _item("letter E", Kind.LETTER, "white", "vowel"),
        _item("letter H", Kind.LETTER, "white", "consonant"),
        _item("letter T", Kind.LETTER, "white", "consonant"),
        _item("letter L", Kind.LETTER, "white", "consonant", seen=False),
        _item("block", Kind.BLOCK, "red green blue yellow purple", "toy stack"),
        _item("ball", Kind.BLOCK, "red green blue", "toy roll round"),
    )
}

RECEPTACLES = {
    item.name: item
    for item in (
        _item("plate", Kind.RECEPTACLE, "white blue red", "flat serve"),
        _item("bowl", Kind.RECEPTACLE, "white green purple", "round serve"),
        _item("basket", Kind.RECEPTACLE, "brown black", "store carry"),
        _item("tray", Kind.RECEPTACLE, "gray pink", "flat carry", seen=False),
    )
}
DRAWER = "drawer"  # the cabinet's one drawer; it can receive things once it is open
