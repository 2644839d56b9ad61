"""Scenes and tasks by chance: what train and test episodes may contain, where things stand, and how it all looks."""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from functools import cache
from math import dist
from zlib import crc32

import numpy as np

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.scene import Look, Placed, Scene, Skill, Task
from instructvla.evaluation.tabletop.shapes import receptacle_of, shape_of

SPLITS = ("train", "test")
# Hues of tables and rooms; between train's and test's lies a gap.
TRAIN_HUES = ((0.00, 0.36), (0.50, 0.66), (0.80, 1.00))
TEST_HUES = ((0.39, 0.47), (0.69, 0.77))
TEST_SHARE = 5  # every so many-th pair of target and destination is kept for test
DESTINATIONS = {
    Skill.PUT_IN: ("bowl", "basket", DRAWER),
    Skill.PUT_ON: ("plate", "tray"),
}
AREA = ((0.38, 0.66), (-0.27, 0.27))  # m, x and y of things' centres
RECEPTACLE_AREA = ((0.43, 0.62), (-0.24, 0.24))
GRIPPER_REACH = 0.080  # m from a thing's middle to the outside of the open fingers, and some air
LARGEST_REACH = 0.055  # m counted for long things; they lie roughly along x, the fingers stand across
NEAR_OFFSET = 0.10  # m between the centres when a thing is moved near another
NEAR_OFFSET_LONG = 0.125  # m, of a long thing, which points at the other
FAR = 0.20  # m between the two at the start
CABINET_SIDE = (0.25, 0.29)  # m, |y| of its middle
CABINET_FRONT = (0.35, 0.38)  # m, x
CABINET_HALF = 0.15  # m beside its middle that things keep free
DRAWER_SHARE = 0.2  # of scenes whose task needs none
ARRANGEMENTS, PLACES = 60, 40  # attempts at a scene, and at a thing's place

Kinded = tuple[str, str]  # item and colour


def combination_split(skill: Skill, target: str, destination: str | None = None) -> str:
    """Which split a task belongs to, by items: "train" or "test".

    Whatever involves an unseen item is for test. Of the pairs of target and destination, a fixed fifth is, by a
    checksum of the names. Picking up a seen item, opening and closing belong to train, and test scenes have
    them too.

    Args:
        skill: what to do.
        target: item's name in the catalogue, or "drawer".
        destination: item, receptacle or "drawer".

    Raises:
        ValueError: for a name that isn't in the catalogue.
    """
    names = [name for name in (target, destination) if name is not None]
    if not all(is_seen(name) for name in names):
        return "test"
    if destination is None:
        return "train"
    return "test" if crc32(f"{skill}: {target} > {destination}".encode()) % TEST_SHARE == 0 else "train"


def is_seen(name: str) -> bool:
    """Whether training episodes handle an item, a receptacle or the drawer.

    Raises:
        ValueError: for a name that isn't in the catalogue.
    """
    if name == DRAWER:
        return True
    known = {**ITEMS, **RECEPTACLES}
    if name not in known:
        raise ValueError(f"there is no {name!r}; there are {', '.join([*known, DRAWER])}.")
    return known[name].seen


def sample_scene(rng: np.random.Generator, split: str, skill: Skill | None = None) -> tuple[Scene, Task]:
    """A scene and a task that can be done in it.

    Args:
        rng: where chance comes from.
        split: "train" or "test".
        skill: None for any, each as often.

    Raises:
        ValueError: for an unknown split.
    """
    check_split(split)
    skill = Skill(rng.choice(list(Skill))) if skill is None else Skill(skill)
    pairs = allowed_pairs(skill, split)
    while True:
        target, destination = pairs[rng.integers(len(pairs))]
        try:
            return furnish(rng, split, skill, target, destination)
        except CrowdedTableError:
            continue


@cache
def allowed_pairs(skill: Skill, split: str) -> list[tuple[str, str | None]]:
    """(target, destination) items that a split's tasks have."""
    if skill in (Skill.OPEN, Skill.CLOSE):
        return [(DRAWER, None)]
    if skill is Skill.PICK_UP:
        return [(name, None) for name, item in ITEMS.items() if item.seen or split == "test"]
    if skill is Skill.MOVE_NEAR:
        pairs = [(a, b) for a in ITEMS for b in ITEMS if a != b and not shape_of(b).long]
    else:
        pairs = [(a, b) for a in ITEMS for b in DESTINATIONS[skill]]
    return [pair for pair in pairs if combination_split(skill, *pair) == split]


def furnish(rng: np.random.Generator, split: str, skill: Skill, target: str, destination: str | None):
    """The scene around a task of given items.

    Raises:
        CrowdedTableError: if no place was found for everything.
    """
    with_drawer = DRAWER in (target, destination) or rng.random() < DRAWER_SHARE
    things = [coloured(rng, name) for name in (target, destination) if name in ITEMS]
    receptacles = [coloured(rng, destination)] if destination in RECEPTACLES else []
    count = int(rng.integers(3, 5 if with_drawer or skill is Skill.MOVE_NEAR else 6))
    things = with_distractors(rng, things, list(ITEMS), count)
    count = int(rng.integers(1, 2 if with_drawer or skill is Skill.MOVE_NEAR else 3))
    receptacles = with_distractors(rng, receptacles, list(RECEPTACLES), count)
    opening = start_opening(rng, skill, destination) if with_drawer else None
    scene = Scene(tuple(Placed(*one, (0, 0)) for one in things), tuple(Placed(*one, (0, 0)) for one in receptacles))
    titles = {placed.item: scene.title(placed) for placed in (*scene.receptacles[::-1], *scene.things[::-1])}
    task = Task(skill, titles.get(target, target), titles.get(destination, destination))
    return arrange(rng, split, things, receptacles, opening, task), task


def coloured(rng: np.random.Generator, name: str) -> Kinded:
    item = ITEMS.get(name) or RECEPTACLES[name]
    return name, str(rng.choice(item.colours))


def with_distractors(rng: np.random.Generator, chosen: list[Kinded], names: list[str], count: int) -> list[Kinded]:
    """`chosen` and others up to a count; no two with one title."""
    chosen = list(chosen)
    while len(chosen) < count:
        other = coloured(rng, names[rng.integers(len(names))])
        if other not in chosen:
            chosen.append(other)
    return chosen


def start_opening(rng: np.random.Generator, skill: Skill, destination: str | None) -> float:
    """Of the drawer: shut before opening it, open before closing it or putting something in."""
    is_open = skill is Skill.CLOSE or destination == DRAWER or (skill is not Skill.OPEN and rng.random() < 0.5)
    return float(rng.uniform(0.92, 1.0) if is_open else rng.uniform(0.0, 0.06))


def arrange(
    rng: np.random.Generator,
    split: str,
    things: Sequence[Kinded],
    receptacles: Sequence[Kinded] = (),
    drawer: float | None = None,
    task: Task | None = None,
) -> Scene:
    """Given things in places by chance, so that the gripper fits between them, and a split's look.

    Args:
        rng: where chance comes from.
        split: "train" or "test".
        things: (item, colour) each; two with one title can't be told apart.
        receptacles: likewise.
        drawer: how far it is open, 0 to 1; None for no cabinet.
        task: of a move near, whose target starts away from its destination, beside which there is room.

    Raises:
        ValueError: if titles repeat, or the split is unknown.
        CrowdedTableError: a ValueError, if no place was found for everything.
    """
    check_split(split)
    if len({*things, *receptacles}) < len(things) + len(receptacles):
        raise ValueError(f"two things here have one title: {[*things, *receptacles]}.")
    look = sample_look(rng, split)
    for _ in range(ARRANGEMENTS):
        cabinet = sample_cabinet(rng)
        beside = cabinet if drawer is not None else None
        placed: list[Placed] = []
        for kinded in (*receptacles, *things):
            place = free_place(rng, kinded, placed, beside)
            if place is None:
                break
            placed.append(place)
        else:
            split_at = len(receptacles)
            scene = Scene(tuple(placed[split_at:]), tuple(placed[:split_at]), drawer, look, cabinet)
            if task is None or task.skill is not Skill.MOVE_NEAR or has_room(scene, task):
                return scene
    names = [" ".join(one[::-1]) for one in (*things, *receptacles)]
    raise CrowdedTableError(f"no room for {', '.join(names)} on one table; take fewer things.")


class CrowdedTableError(ValueError):
    """The table is too small for what should stand on it."""


def free_place(
    rng: np.random.Generator, kinded: Kinded, others: Sequence[Placed], cabinet: tuple[float, float] | None
) -> Placed | None:
    """A place and a turn clear of the others, or None after some attempts."""
    item, colour = kinded
    area = RECEPTACLE_AREA if item in RECEPTACLES else AREA
    for _ in range(PLACES):
        (x, y) = (float(rng.uniform(*limits)) for limits in area)
        if cabinet is not None and abs(y - cabinet[1]) < CABINET_HALF + reach_of(item):
            continue
        if all(dist((x, y), other.position) >= distance_between(item, other.item) for other in others):
            largest = shape_of(item).largest_yaw if item in ITEMS else 0.0
            yaw = float(rng.uniform(-largest, largest)) if item in ITEMS else 0.0
            return Placed(item, colour, (x, y), yaw)
    return None


def reach_of(item: str) -> float:
    """Half of an item's extent that others keep free."""
    return min(shape_of(item).reach, LARGEST_REACH) if item in ITEMS else receptacle_of(item).reach


def distance_between(one: str, other: str) -> float:
    """Least distance of two items' centres."""
    reaches = reach_of(one), reach_of(other)
    if one in RECEPTACLES and other in RECEPTACLES:
        return sum(reaches) + 0.01
    return GRIPPER_REACH + max(reaches)


def near_spot(item: str, destination: tuple[float, float]) -> tuple[float, float]:
    """Where an item goes that is moved near a place: in front of it or behind it, towards the table's middle."""
    x, y = destination
    offset = NEAR_OFFSET_LONG if shape_of(item).long else NEAR_OFFSET
    return x + (offset if x < sum(AREA[0]) / 2 else -offset), y


def has_room(scene: Scene, task: Task) -> bool:
    """Whether the target of a move near starts away from its destination, and the spot beside that is free."""
    titles = scene.titles()
    target, destination = titles[task.target], titles[task.destination]
    spot = near_spot(target.item, destination.position)
    others = [placed for title, placed in titles.items() if title not in (task.target, task.destination)]
    clear = all(dist(spot, other.position) >= distance_between(target.item, other.item) for other in others)
    return clear and dist(target.position, destination.position) >= FAR


def sample_cabinet(rng: np.random.Generator) -> tuple[float, float]:
    """x and y of the middle of its front."""
    side = 1 if rng.random() < 0.5 else -1
    return float(rng.uniform(*CABINET_FRONT)), side * float(rng.uniform(*CABINET_SIDE))


def sample_look(rng: np.random.Generator, split: str) -> Look:
    """Colours, light and camera: tables and rooms of train have all hues but two bands, which are those of test."""
    hues = TEST_HUES if split == "test" else TRAIN_HUES
    table = hsv_to_rgb(hue_in(rng, hues), rng.uniform(0.10, 0.40), rng.uniform(0.40, 0.85))
    background = hsv_to_rgb(hue_in(rng, hues), rng.uniform(0.05, 0.40), rng.uniform(0.40, 0.90))
    return Look(
        table=tuple(map(float, table)),
        background=tuple(map(float, background)),
        light=(float(rng.uniform(0.2, 0.9)), float(rng.uniform(-0.5, 0.5))),
        brightness=float(rng.uniform(0.40, 0.65)),
        camera_shift=tuple(map(float, rng.uniform(-0.015, 0.015, 3))),
        camera_turn=tuple(map(float, rng.uniform(-0.015, 0.015, 3))),
    )


def hue_in(rng: np.random.Generator, bands: Sequence[tuple[float, float]]) -> float:
    """A hue by chance, 0 to 1, each of the bands as often as it is wide."""
    widths = np.array([high - low for low, high in bands])
    low, high = bands[rng.choice(len(bands), p=widths / widths.sum())]
    return rng.uniform(low, high)


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; there are {', '.join(SPLITS)}.")
