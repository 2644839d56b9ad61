"""What is true of the tabletop at one moment, as plain data: for success rules, for language and for the expert."""

from dataclasses import dataclass

TABLE = "table"

STATE_NAMES = ("tcp_x", "tcp_y", "tcp_z", "roll", "pitch", "yaw", "gripper_opening", "grip_force")


@dataclass(frozen=True)
class ObjectState:
    """One thing or receptacle.

    Args:
        x, y, z: of its centre in m, in the base's frame; the table top is z = 0.
        yaw: rad, about the vertical.
        tilt: rad, between its own vertical and the world's; 0 as it was set down.
        support: `TABLE`, a receptacle's title or "drawer"; None while the gripper holds it.
        held: whether both fingers press on it while the gripper closes.
        still: whether it rests.
    """

    x: float
    y: float
    z: float
    yaw: float = 0.0
    tilt: float = 0.0
    support: str | None = TABLE
    held: bool = False
    still: bool = True

    @property
    def position(self) -> tuple[float, float, float]:
        return self.x, self.y, self.z


@dataclass(frozen=True)
class WorldState:
    """Everything at one moment.

    Args:
        objects: title → state, of all things and receptacles.
        tcp: x, y, z in m, then roll, pitch and yaw in rad, of the point between the finger tips; roll and pitch are 0
            when the gripper points straight down.
        gripper: opening, 0 closed to 1 open.
        grip_force: of the weaker finger, 0 to 1 (`world.FULL_GRIP` newtons and more).
        drawer: how far the drawer is open, 0 to 1; None where there is no cabinet.
        handle: x, y and z of the middle of the drawer's handle; None where there is no cabinet.
        drawer_middle: x, y and z of the floor's middle of the part of the drawer that stands out; None likewise.
    """

    objects: dict[str, ObjectState]
    tcp: tuple[float, float, float, float, float, float]
    gripper: float
    grip_force: float = 0.0
    drawer: float | None = None
    handle: tuple[float, float, float] | None = None
    drawer_middle: tuple[float, float, float] | None = None

    def held(self) -> str | None:
        """Title of the thing in the gripper."""
        return next((title for title, one in self.objects.items() if one.held), None)
