"""A scene and a task in it, as data: what the simulator builds, language is written from, and a seed fixes."""

from dataclasses import dataclass
from enum import StrEnum

from instructvla.evaluation.tabletop.catalogue import ITEMS, RECEPTACLES


class Skill(StrEnum):
    """What the arm can be asked to do."""

    PICK_UP = "pick up"
    PUT_IN = "put in"  # a bowl, a basket, the open drawer
    PUT_ON = "put on"  # a plate, a tray
    MOVE_NEAR = "move near"
    OPEN = "open"
    CLOSE = "close"


@dataclass(frozen=True)
class Placed:
    """One item of the catalogue at its place.

    Args:
        item: its name in the catalogue.
        colour: one of its colours.
        position: x and y of its centre in m; x points from the robot over the table, y to the robot's left.
        yaw: rad, about the vertical.
    """

    item: str
    colour: str
    position: tuple[float, float]
    yaw: float = 0.0


@dataclass(frozen=True)
class Look:
    """How a scene looks, which tasks don't depend on.

    Args:
        table: RGB of the table top, 0 to 1.
        background: RGB of the floor and the walls.
        light: x and y of the lamp in m.
        brightness: of the lamp.
        camera_shift: m, of the front camera, along x, y and z.
        camera_turn: rad, of the front camera, about its own x, y and z.
    """

    table: tuple[float, float, float] = (0.62, 0.50, 0.38)
    background: tuple[float, float, float] = (0.75, 0.78, 0.80)
    light: tuple[float, float] = (0.5, 0.0)
    brightness: float = 0.55
    camera_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    camera_turn: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """Everything on the table at the start.

    Args:
        things: what can be picked up.
        receptacles: plates, bowls, baskets and trays; they stay where they are.
        drawer: how far the drawer is open, 0 to 1, or None where there is no cabinet.
        look: light, colours and camera.
        cabinet: x and y of the middle of the cabinet's front, in m; it opens along +x.
    """

    things: tuple[Placed, ...]
    receptacles: tuple[Placed, ...] = ()
    drawer: float | None = None
    look: Look = Look()
    cabinet: tuple[float, float] = (0.36, 0.29)

    def title(self, placed: Placed) -> str:
        """The shortest name that points at one thing here: "apple", or "red block" where items come in colours."""
        return f"{placed.colour} {placed.item}" if len(item_of(placed).colours) > 1 else placed.item

    def titles(self) -> dict[str, Placed]:
        """Title → thing or receptacle; the drawer is not among them."""
        return {self.title(placed): placed for placed in (*self.things, *self.receptacles)}


@dataclass(frozen=True)
class Task:
    """What is to be done in a scene.

    Args:
        skill: what to do.
        target: title of the thing to handle, or "drawer" to open and close.
        destination: title of the receptacle, of the thing to move near, or "drawer"; None for the other skills.
    """

    skill: Skill
    target: str
    destination: str | None = None

    def instruction(self) -> str:
        """The plain command, as robot data give it: "put the apple in the white bowl"."""
        match self.skill:
            case Skill.PUT_IN | Skill.PUT_ON:
                return f"put the {self.target} {self.skill.split()[1]} the {self.destination}"
            case Skill.MOVE_NEAR:
                return f"move the {self.target} near the {self.destination}"
        return f"{self.skill} the {self.target}"


def item_of(placed: Placed):
    """The catalogue's entry of a placed thing or receptacle."""
    return ITEMS.get(placed.item) or RECEPTACLES[placed.item]
