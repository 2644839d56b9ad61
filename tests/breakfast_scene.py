"""A small scene that the tests of the tabletop's physics share."""

from instructvla.evaluation.tabletop.scene import Placed, Scene
from instructvla.evaluation.tabletop.simulation import Simulation

START = (0.42, 0.0, 0.25, 0.0)
OPEN, CLOSED = 1.0, 0.0


def breakfast(drawer: float | None = None) -> Scene:
    """An apple, a bottle, a red block and a spoon; a white bowl at the right, or the cabinet there."""
    return Scene(
        things=(
            Placed("apple", "red", (0.52, 0.02)),
            Placed("water bottle", "blue", (0.44, 0.16)),
            Placed("block", "red", (0.62, -0.10), 0.3),
            Placed("spoon", "gray", (0.60, 0.16), -0.4),
        ),
        receptacles=(Placed("bowl", "white", (0.50, -0.19)),) if drawer is None else (),
        drawer=drawer,
        cabinet=(0.36, -0.28),
    )


def simulated(drawer: float | None = None, start: tuple[float, float, float, float] = START) -> Simulation:
    return Simulation(breakfast(drawer), start)
