"""What every item of the catalogue looks like and how it can be grasped: primitives only, sizes in metres."""

from dataclasses import dataclass
from functools import cache
from math import atan2, cos, hypot, pi, sin, tan

from instructvla.evaluation.tabletop.catalogue import COLOURS, DRAWER, ITEMS, RECEPTACLES

LOWEST_GRASP = 0.021  # of the tool centre point, so that the finger tips stay clear of the table
LEAF = (0.16, 0.42, 0.12)
STEEL = (0.66, 0.67, 0.70)
CREAM = (0.95, 0.93, 0.86)
INK = (0.06, 0.06, 0.09)
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One primitive.

    Args:
        form: MuJoCo's geom type: box, sphere, ellipsoid, cylinder or capsule.
        size: MuJoCo's half sizes in m.
        at: its centre in m, above the middle of the item's footprint.
        turn: Euler angles x, y, z in rad.
        rgb: its colour; None for the item's.
        solid: whether it collides.
        visible: whether cameras see it.
        mass: kg; only solid parts have one.
    """

    form: str
    size: tuple[float, ...]
    at: tuple[float, float, float]
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rgb: RGB | None = None
    solid: bool = False
    visible: bool = True
    mass: float = 0.06


@dataclass(frozen=True)
class Shape:
    """A thing that can be picked up.

    Args:
        parts: primitives, z from the table.
        height: of its top above the table; its centre is at half of it.
        grasp: height of the tool centre point above the table when the gripper closes.
        period: rad, after which it looks the same to the fingers when turned; None for round things. The fingers close
            across its own y.
        largest_yaw: rad; scenes turn it at most so far, so that the wrist needs no long turn.
        reach: half of its longest extent on the table in m.
        shade: RGB in place of the catalogue's colour, where things of one colour should differ by a nuance.
    """

    parts: tuple[Part, ...]
    height: float
    grasp: float
    period: float | None = None
    largest_yaw: float = 0.0
    reach: float = 0.03
    shade: RGB | None = None

    @property
    def long(self) -> bool:
        return self.reach > 0.05


@dataclass(frozen=True)
class Receptacle:
    """Something that holds things and stays where it is.

    Args:
        parts: primitives, z from the table.
        rim: height of its edge above the table.
        floor: height on which things come to rest.
        inside: half extents in x and y in which a thing's centre counts as inside.
        round: whether `inside` is a radius.
        reach: half of its longest extent.
    """

    parts: tuple[Part, ...]
    rim: float
    floor: float
    inside: tuple[float, float]
    round: bool
    reach: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point, given from the middle, is inside."""
        if self.round:
            return x**2 + y**2 <= self.inside[0] ** 2
        return abs(x) <= self.inside[0] and abs(y) <= self.inside[1]


def hull(form: str, *size: float, at: tuple[float, float, float], mass: float = 0.06) -> Part:
    """A part that collides and isn't seen."""
    return Part(form, size, at, solid=True, visible=False, mass=mass)


def look(form: str, *size: float, at: tuple[float, float, float], rgb: RGB | None = None, turn=(0.0, 0.0, 0.0)) -> Part:
    """A part that is seen and doesn't collide."""
    return Part(form, size, at, turn, rgb)


def lying(parts: tuple[Part, ...], height: float, reach: float, hulls: tuple[Part, ...]) -> Shape:
    """A long thing along its own x; boxes collide in its stead, so that it doesn't roll."""
    return Shape(hulls + parts, height, max(height / 2, LOWEST_GRASP), pi, 0.7, reach)


def bar(length: float, width: float, height: float, x: float = 0.0, mass: float = 0.06) -> Part:
    """A lying box that collides, given by whole sizes."""
    return hull("box", length / 2, width / 2, height / 2, at=(x, 0.0, height / 2), mass=mass)


def round_fruit(radius: float, *parts: Part, shade: RGB | None = None) -> Shape:
    body = Part("sphere", (radius,), (0.0, 0.0, radius), solid=True)
    return Shape((body, *parts), 2 * radius, radius, reach=radius, shade=shade)


def apple() -> Shape:
    stem = look("capsule", 0.003, 0.008, at=(0, 0, 0.061), rgb=(0.30, 0.18, 0.08), turn=(0.2, 0.15, 0))
    leaf = look("ellipsoid", 0.014, 0.007, 0.002, at=(0.012, 0.004, 0.064), rgb=LEAF, turn=(0, -0.4, 0.3))
    return round_fruit(0.029, stem, leaf, shade=(0.70, 0.03, 0.08))


def orange() -> Shape:
    return round_fruit(0.030, look("sphere", 0.007, at=(0, 0, 0.056), rgb=LEAF))


def plum() -> Shape:
    stem = look("capsule", 0.003, 0.007, at=(0, 0, 0.058), rgb=(0.30, 0.18, 0.08))
    return round_fruit(0.028, stem, shade=(0.36, 0.08, 0.42))


def lemon() -> Shape:
    body = Part("ellipsoid", (0.036, 0.027, 0.027), (0, 0, 0.027), solid=True)
    tips = [look("ellipsoid", 0.010, 0.009, 0.009, at=(x, 0, 0.027)) for x in (-0.035, 0.035)]
    return Shape((body, *tips), 0.054, 0.027, pi, 0.5, 0.042)


def tomato() -> Shape:
    body = Part("ellipsoid", (0.033, 0.033, 0.026), (0, 0, 0.026), solid=True)
    star = [
        look("ellipsoid", 0.017, 0.005, 0.003, at=(0.010 * cos(a), 0.010 * sin(a), 0.0515), rgb=LEAF, turn=(0, 0, a))
        for a in (i * 2 * pi / 5 for i in range(5))
    ]
    return Shape((body, *star), 0.052, 0.026, reach=0.033, shade=(0.90, 0.17, 0.05))


def banana() -> Shape:
    bends = [(-0.046, 0.010, 0.55), (-0.016, -0.003, 0.15), (0.016, -0.003, -0.15), (0.046, 0.010, -0.55)]
    flesh = [look("capsule", 0.0145, 0.017, at=(x, y, 0.0145), turn=(0, pi / 2, -a)) for x, y, a in bends]
    ends = [
        look("capsule", 0.006, 0.008, at=(s * 0.067, 0.024, 0.0145), rgb=(0.35, 0.24, 0.08), turn=(0, pi / 2, s * 0.6))
        for s in (-1, 1)
    ]
    hulls = (bar(0.07, 0.029, 0.029), *(bar(0.03, 0.034, 0.029, x=x, mass=0.01) for x in (-0.052, 0.052)))
    return lying((*flesh, *ends), 0.029, 0.072, hulls)


def carrot() -> Shape:
    root = [
        look("ellipsoid", 0.045, 0.018, 0.017, at=(0.018, 0, 0.017)),
        look("ellipsoid", 0.060, 0.012, 0.012, at=(-0.012, 0, 0.014)),
    ]
    leaves = [
        look("capsule", 0.005, 0.016, at=(0.072, y, 0.018), rgb=(0.15, 0.50, 0.12), turn=(0, pi / 2, 25 * y))
        for y in (-0.012, 0.0, 0.012)
    ]
    return lying((*root, *leaves), 0.030, 0.080, (bar(0.10, 0.030, 0.030), bar(0.04, 0.026, 0.026, x=0.06, mass=0.01)))


def cucumber() -> Shape:
    flesh = look("capsule", 0.0165, 0.052, at=(0, 0, 0.0165), turn=(0, pi / 2, 0), rgb=(0.13, 0.42, 0.14))
    tips = [look("sphere", 0.0125, at=(s * 0.060, 0, 0.0165), rgb=(0.55, 0.70, 0.30)) for s in (-1, 1)]
    return lying((flesh, *tips), 0.033, 0.070, (bar(0.13, 0.032, 0.033),))


def cylinder(radius: float, low: float, high: float, rgb: RGB | None = None) -> Part:
    """An upright one between two heights, seen only."""
    return look("cylinder", radius, (high - low) / 2, at=(0, 0, (high + low) / 2), rgb=rgb)


def water_bottle() -> Shape:
    parts = (
        cylinder(0.027, 0.0, 0.082),
        look("ellipsoid", 0.027, 0.027, 0.020, at=(0, 0, 0.082)),
        cylinder(0.0275, 0.030, 0.058, (0.85, 0.92, 0.97)),
        cylinder(0.012, 0.095, 0.108),
        cylinder(0.015, 0.106, 0.120, (0.95, 0.95, 0.96)),
    )
    return Shape(
        (hull("cylinder", 0.027, 0.050, at=(0, 0, 0.05), mass=0.08), *parts),
        0.12,
        0.060,
        reach=0.027,
        shade=(0.12, 0.42, 0.90),
    )


def can(band: RGB) -> Shape:
    parts = (
        cylinder(0.029, 0.004, 0.086),
        cylinder(0.0293, 0.034, 0.054, band),
        cylinder(0.026, 0.0, 0.092, STEEL),
        look("box", 0.008, 0.004, 0.001, at=(0.008, 0, 0.0925), rgb=(0.35, 0.35, 0.38)),
    )
    return Shape((hull("cylinder", 0.029, 0.045, at=(0, 0, 0.045), mass=0.08), *parts), 0.092, 0.050, reach=0.029)


def milk_carton() -> Shape:
    roof = [
        look("box", 0.0265, 0.0185, 0.002, at=(0, s * 0.0135, 0.098), rgb=(0.80, 0.84, 0.90), turn=(-s * 0.75, 0, 0))
        for s in (-1, 1)
    ]
    parts = (
        look("box", 0.027, 0.027, 0.043, at=(0, 0, 0.043)),
        look("box", 0.0274, 0.0274, 0.013, at=(0, 0, 0.026), rgb=(0.15, 0.35, 0.80)),
        look("box", 0.027, 0.003, 0.008, at=(0, 0, 0.114)),
        *roof,
    )
    body = hull("box", 0.027, 0.027, 0.050, at=(0, 0, 0.050), mass=0.08)
    return Shape((body, *parts), 0.12, 0.055, pi / 2, 0.4, 0.038)


def juice_box() -> Shape:
    parts = (
        look("box", 0.029, 0.022, 0.042, at=(0, 0, 0.042)),
        look("box", 0.0294, 0.0224, 0.012, at=(0, 0, 0.050), rgb=(0.98, 0.90, 0.30)),
        look("capsule", 0.003, 0.014, at=(0.012, 0.006, 0.096), rgb=CREAM, turn=(0.25, 0.25, 0)),
    )
    body = hull("box", 0.029, 0.022, 0.042, at=(0, 0, 0.042), mass=0.07)
    return Shape((body, *parts), 0.084, 0.050, pi, 0.4, 0.036)


def sponge() -> Shape:
    foam = Part("box", (0.043, 0.028, 0.013), (0, 0, 0.013), solid=True, mass=0.03)
    rough = Part("box", (0.043, 0.028, 0.005), (0, 0, 0.031), rgb=(0.20, 0.50, 0.25), solid=True, mass=0.01)
    return Shape((foam, rough), 0.036, LOWEST_GRASP, pi, 0.5, 0.05)


def hammer() -> Shape:
    parts = (
        look("capsule", 0.0115, 0.055, at=(-0.015, 0, 0.0125), turn=(0, pi / 2, 0)),
        look("box", 0.014, 0.024, 0.014, at=(0.052, 0, 0.014), rgb=(0.33, 0.34, 0.37)),
        look("cylinder", 0.016, 0.010, at=(0.052, -0.032, 0.016), rgb=(0.33, 0.34, 0.37), turn=(pi / 2, 0, 0)),
        look("box", 0.008, 0.012, 0.004, at=(0.052, 0.033, 0.018), rgb=(0.33, 0.34, 0.37)),
    )
    hulls = (
        bar(0.11, 0.023, 0.024, x=-0.022, mass=0.06),
        hull("box", 0.014, 0.040, 0.014, at=(0.052, 0, 0.014), mass=0.03),
    )
    return lying(parts, 0.028, 0.075, hulls)


def screwdriver() -> Shape:
    parts = (
        look("capsule", 0.0155, 0.024, at=(-0.028, 0, 0.0155), turn=(0, pi / 2, 0)),
        look("cylinder", 0.0165, 0.004, at=(-0.010, 0, 0.0165), rgb=INK, turn=(0, pi / 2, 0)),
        look("cylinder", 0.0055, 0.036, at=(0.040, 0, 0.0155), rgb=STEEL, turn=(0, pi / 2, 0)),
        look("box", 0.006, 0.008, 0.003, at=(0.074, 0, 0.0155), rgb=STEEL),
    )
    return lying(
        parts, 0.031, 0.075, (bar(0.085, 0.031, 0.031, x=-0.025), bar(0.065, 0.012, 0.020, x=0.047, mass=0.01))
    )


def marker() -> Shape:
    parts = (
        look("cylinder", 0.0125, 0.034, at=(-0.026, 0, 0.0125), turn=(0, pi / 2, 0)),
        look("cylinder", 0.0128, 0.012, at=(0.018, 0, 0.0125), rgb=CREAM, turn=(0, pi / 2, 0)),
        look("cylinder", 0.0125, 0.014, at=(0.044, 0, 0.0125), turn=(0, pi / 2, 0)),
        look("cylinder", 0.006, 0.006, at=(0.063, 0, 0.0125), turn=(0, pi / 2, 0)),
    )
    return lying(parts, 0.025, 0.068, (bar(0.13, 0.025, 0.025),))


def brush() -> Shape:
    parts = (
        look("capsule", 0.0105, 0.042, at=(-0.028, 0, 0.0115), turn=(0, pi / 2, 0)),
        look("box", 0.013, 0.018, 0.010, at=(0.032, 0, 0.012), rgb=STEEL),
        look("box", 0.016, 0.019, 0.008, at=(0.060, 0, 0.012), rgb=(0.48, 0.28, 0.12)),
    )
    return lying(parts, 0.024, 0.078, (bar(0.10, 0.022, 0.022, x=-0.025), bar(0.055, 0.036, 0.024, x=0.05, mass=0.01)))


def handle_part() -> Part:
    """Of spoon and fork."""
    return look("ellipsoid", 0.058, 0.0095, 0.010, at=(-0.022, 0, 0.010), rgb=STEEL)


def spoon() -> Shape:
    parts = (
        handle_part(),
        look("ellipsoid", 0.031, 0.024, 0.010, at=(0.050, 0, 0.011), rgb=STEEL),
        look("ellipsoid", 0.022, 0.016, 0.004, at=(0.050, 0, 0.0185), rgb=(0.42, 0.43, 0.46)),
    )
    return lying(parts, 0.022, 0.080, (bar(0.11, 0.018, 0.020, x=-0.02), bar(0.058, 0.044, 0.020, x=0.05, mass=0.02)))


def fork() -> Shape:
    tines = [look("box", 0.020, 0.0032, 0.006, at=(0.058, y, 0.012), rgb=STEEL) for y in (-0.018, -0.006, 0.006, 0.018)]
    palm = look("box", 0.010, 0.021, 0.007, at=(0.030, 0, 0.012), rgb=STEEL)
    hulls = (bar(0.10, 0.018, 0.020, x=-0.03), bar(0.058, 0.042, 0.018, x=0.05, mass=0.02))
    return lying((handle_part(), palm, *tines), 0.022, 0.079, hulls)


def knife() -> Shape:
    parts = (
        look("box", 0.034, 0.011, 0.010, at=(-0.043, 0, 0.010), rgb=INK),
        look("box", 0.038, 0.014, 0.005, at=(0.028, 0, 0.012), rgb=STEEL),
        look("ellipsoid", 0.022, 0.014, 0.005, at=(0.062, 0, 0.012), rgb=STEEL),
    )
    return lying(parts, 0.020, 0.080, (bar(0.16, 0.024, 0.020),))


def cup() -> Shape:
    loop = [look("capsule", 0.004, 0.010, at=(0.040, 0, z), turn=(0, pi / 2, 0)) for z in (0.020, 0.048)] + [
        look("capsule", 0.004, 0.014, at=(0.050, 0, 0.034))
    ]
    parts = (
        cylinder(0.031, 0.0, 0.070),
        cylinder(0.027, 0.060, 0.0706, (0.25, 0.14, 0.08)),
        *loop,
    )
    return Shape((hull("cylinder", 0.031, 0.035, at=(0, 0, 0.035), mass=0.07), *parts), 0.07, 0.040, pi, 0.4, 0.045)


STROKES = {  # x up the letter, y to its right, both in half letters: from, to
    "A": [((-1, -1), (1, 0)), ((-1, 1), (1, 0)), ((-0.25, -0.55), (-0.25, 0.55))],
    "E": [((-1, -0.8), (1, -0.8)), ((1, -0.8), (1, 0.9)), ((0, -0.8), (0, 0.6)), ((-1, -0.8), (-1, 0.9))],
    "H": [((-1, -0.8), (1, -0.8)), ((-1, 0.8), (1, 0.8)), ((0, -0.8), (0, 0.8))],
    "L": [((-1, -0.7), (1, -0.7)), ((-1, -0.7), (-1, 0.9))],
    "T": [((1, -1), (1, 1)), ((-1, 0), (1, 0))],
}


def stroke(start: tuple[float, float], end: tuple[float, float]) -> Part:
    """One line of a letter on its tile. The front camera looks back at the robot: up in its picture is -x here."""
    (x0, y0), (x1, y1) = [(-0.030 * up, 0.021 * right) for up, right in (start, end)]
    length = hypot(x1 - x0, y1 - y0)
    size = (length / 2 + 0.0055, 0.0055, 0.001)
    return Part("box", size, ((x0 + x1) / 2, (y0 + y1) / 2, 0.0255), (0, 0, atan2(y1 - y0, x1 - x0)), INK)


def letter(name: str) -> Shape:
    tile = Part("box", (0.043, 0.033, 0.0125), (0, 0, 0.0125), rgb=CREAM, solid=True)
    edge = look("box", 0.0435, 0.0335, 0.004, at=(0, 0, 0.004), rgb=(0.72, 0.58, 0.38))
    return Shape((tile, edge, *(stroke(*ends) for ends in STROKES[name])), 0.026, LOWEST_GRASP, pi, 0.25, 0.05)


def block() -> Shape:
    return Shape((Part("box", (0.026,) * 3, (0, 0, 0.026), solid=True),), 0.052, 0.026, pi / 2, 0.5, 0.036)


def ball() -> Shape:
    stripe = look("cylinder", 0.0288, 0.0055, at=(0, 0, 0.028), rgb=CREAM, turn=(0.5, 0.3, 0))
    return round_fruit(0.028, stripe)


def ring(sides: int, radius: float, low: float, high: float, lean: float = 0.0, rgb: RGB | None = None) -> list[Part]:
    """Walls of a polygon, solid; `lean` in rad tips them outwards."""
    half = (high - low) / 2
    return [
        Part(
            "box",
            (0.004, (radius + 0.004) * tan(pi / sides), half / cos(lean)),
            (radius * cos(angle), radius * sin(angle), low + half),
            (0.0, lean, angle),  # read as intrinsic z, then y: see scene_xml
            rgb,
            solid=True,
        )
        for angle in (2 * pi * i / sides for i in range(sides))
    ]


def plate() -> Receptacle:
    parts = (
        Part("cylinder", (0.088, 0.004), (0, 0, 0.004), solid=True),
        look("cylinder", 0.062, 0.0006, at=(0, 0, 0.0082), rgb=(0.72, 0.76, 0.82)),
        look("cylinder", 0.056, 0.0006, at=(0, 0, 0.0088)),
        *ring(20, 0.086, 0.004, 0.015, 0.5),
    )
    return Receptacle(parts, 0.015, 0.009, (0.085, 0.085), True, 0.092)


def bowl() -> Receptacle:
    parts = (
        Part("cylinder", (0.066, 0.004), (0, 0, 0.004), solid=True),
        look("cylinder", 0.058, 0.0006, at=(0, 0, 0.0084), rgb=(0.55, 0.55, 0.57)),
        *ring(16, 0.073, 0.004, 0.048, 0.30),
    )
    return Receptacle(parts, 0.048, 0.008, (0.075, 0.075), True, 0.086)


def box_walls(half_x: float, half_y: float, low: float, high: float, thickness: float = 0.004) -> list[Part]:
    z, half = (low + high) / 2, (high - low) / 2
    along = [Part("box", (half_x, thickness, half), (0, s * half_y, z), solid=True) for s in (-1, 1)]
    across = [Part("box", (thickness, half_y, half), (s * half_x, 0, z), solid=True) for s in (-1, 1)]
    return along + across


def basket() -> Receptacle:
    rims = [look("capsule", 0.006, 0.080, at=(0, s * 0.080, 0.052), turn=(0, pi / 2, 0)) for s in (-1, 1)] + [
        look("capsule", 0.006, 0.080, at=(s * 0.080, 0, 0.052), turn=(pi / 2, 0, 0)) for s in (-1, 1)
    ]
    slats = [
        look("box", *((0.006, 0.0015) if side else (0.0015, 0.006)), 0.020, at=at, rgb=(0.80, 0.66, 0.42))
        for side in (0, 1)
        for s in (-1, 1)
        for k in (-0.050, -0.025, 0.0, 0.025, 0.050)
        for at in [((k, s * 0.0845, 0.026) if side else (s * 0.0845, k, 0.026))]
    ]
    floor = Part("box", (0.080, 0.080, 0.004), (0, 0, 0.004), rgb=(0.80, 0.66, 0.42), solid=True)
    return Receptacle(
        (floor, *box_walls(0.080, 0.080, 0.0, 0.052), *rims, *slats), 0.056, 0.008, (0.078, 0.078), False, 0.105
    )


def tray() -> Receptacle:
    floor = Part("box", (0.075, 0.095, 0.004), (0, 0, 0.004), solid=True)
    mat = look("box", 0.062, 0.080, 0.0006, at=(0, 0, 0.0082), rgb=CREAM)
    grips = [look("capsule", 0.006, 0.025, at=(0, s * 0.098, 0.018), turn=(0, pi / 2, 0)) for s in (-1, 1)]
    return Receptacle(
        (floor, mat, *box_walls(0.075, 0.095, 0.0, 0.018), *grips), 0.018, 0.009, (0.075, 0.095), False, 0.11
    )


SHAPES = {
    "apple": apple,
    "banana": banana,
    "orange": orange,
    "lemon": lemon,
    "plum": plum,
    "carrot": carrot,
    "tomato": tomato,
    "cucumber": cucumber,
    "water bottle": water_bottle,
    "cola can": lambda: can((0.95, 0.95, 0.95)),
    "lemonade can": lambda: can((0.95, 0.85, 0.15)),
    "milk carton": milk_carton,
    "juice box": juice_box,
    "sponge": sponge,
    "hammer": hammer,
    "screwdriver": screwdriver,
    "marker": marker,
    "brush": brush,
    "spoon": spoon,
    "fork": fork,
    "knife": knife,
    "cup": cup,
    **{f"letter {name}": (lambda name=name: letter(name)) for name in STROKES},
    "block": block,
    "ball": ball,
}
VESSELS = {"plate": plate, "bowl": bowl, "basket": basket, "tray": tray}


@cache
def shape_of(item: str) -> Shape:
    """The shape of a thing of the catalogue.

    Raises:
        ValueError: for a name that isn't there.
    """
    if item not in SHAPES:
        raise ValueError(f"there is no {item!r} to pick up; there are {', '.join(ITEMS)}.")
    return SHAPES[item]()


@cache
def receptacle_of(item: str) -> Receptacle:
    """The shape of a receptacle of the catalogue.

    Raises:
        ValueError: for a name that isn't there.
    """
    if item not in VESSELS:
        raise ValueError(f"there is no receptacle {item!r}; there are {', '.join(RECEPTACLES)} and {DRAWER}.")
    return VESSELS[item]()


def colour_of(item: str, colour: str) -> RGB:
    """RGB of an item in one of its colours; single-coloured things may have a shade of their own."""
    shade = shape_of(item).shade if item in ITEMS else None
    return shade or COLOURS[colour]
