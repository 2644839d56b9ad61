"""What can be said of a scene over a whole recording: only what is true at each of its moments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.references import rightness
from instructvla.evaluation.tabletop.scene import Placed, Scene
from instructvla.evaluation.tabletop.world_state import TABLE, WorldState

MOVED = 0.02  # m from its first place; less is resting
OPEN_FROM, CLOSED_TO = 0.7, 0.1  # of the drawer's way; between them it is neither

Point = tuple[float, float]


@dataclass(frozen=True)
class View:
    """A scene as it looks during some time.

    Args:
        scene: at its start.
        resting: titles of what never moves.
        visible: titles of what never lies in the drawer.
        supports: title → what it rests on all the time.
        empty: titles of receptacles that nothing ever touches.
        drawer: "open" or "closed" all the time, or None.
        points: title → (u, v) in the front picture, each 0 to 1 from its upper left corner, as far as known.
    """

    scene: Scene
    resting: frozenset[str]
    visible: frozenset[str]
    supports: Mapping[str, str] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()
    drawer: str | None = None
    points: Mapping[str, Point] = field(default_factory=dict)

    @classmethod
    def of_scene(cls, scene: Scene, points: Mapping[str, Point] | None = None) -> "View":
        """A picture of the scene as it was built: all things stand on the table."""
        titles = frozenset(scene.titles())
        things = {scene.title(placed): TABLE for placed in scene.things}
        empty = titles - set(things)
        return cls(scene, titles, titles, things, empty, drawer_word([scene.drawer]), checked_points(scene, points))

    @classmethod
    def of_states(cls, scene: Scene, states: Sequence[WorldState], points: Mapping[str, Point] | None = None) -> "View":
        """A recording.

        Args:
            states: of every frame.
            points: at the first frame.

        Raises:
            ValueError: no states, or states of another scene.
        """
        titles = scene.titles()
        if not states or any(set(state.objects) != set(titles) for state in states):
            raise ValueError(f"states must be one or more of the scene's {', '.join(titles)}")
        resting = frozenset(title for title in titles if rests(title, states))
        return cls(
            scene=scene,
            resting=resting,
            visible=frozenset(t for t in titles if all(state.objects[t].support != DRAWER for state in states)),
            supports={
                title: support
                for placed in scene.things
                if (title := scene.title(placed)) in resting and (support := states[0].objects[title].support)
            },
            empty=frozenset(scene.title(placed) for placed in scene.receptacles if untouched(scene, placed, states)),
            drawer=drawer_word([state.drawer for state in states]),
            points={title: point for title, point in checked_points(scene, points).items() if title in resting},
        )

    def in_order(self, titles: Sequence[str]) -> list[str]:
        """From left to right in the picture; what moves comes last."""
        placed = self.scene.titles()
        seen = self.resting <= set(self.points)

        def place(title: str) -> tuple[bool, float]:
            if title not in self.resting:
                return True, rightness(placed[title])
            return False, self.points[title][0] if seen else rightness(placed[title])

        return sorted(titles, key=place)


def rests(title: str, states: Sequence[WorldState]) -> bool:
    first = states[0].objects[title]
    for state in states:
        now = state.objects[title]
        moved = max(abs(a - b) for a, b in zip(now.position, first.position, strict=True))
        if now.held or now.support != first.support or moved > MOVED:
            return False
    return True


def untouched(scene: Scene, receptacle: Placed, states: Sequence[WorldState]) -> bool:
    title = scene.title(receptacle)
    return all(one.support != title for state in states for one in state.objects.values())


def drawer_word(openings: Sequence[float | None]) -> str | None:
    """ "open" or "closed", if it is so each time."""
    if None in openings:
        return None
    if min(openings) >= OPEN_FROM:
        return "open"
    return "closed" if max(openings) <= CLOSED_TO else None


def checked_points(scene: Scene, points: Mapping[str, Point] | None) -> dict[str, Point]:
    """The points inside the picture.

    Raises:
        ValueError: a title that the scene doesn't have.
    """
    points = points or {}
    if unknown := sorted(set(points) - {*scene.titles(), DRAWER}):
        raise ValueError(f"points of {', '.join(unknown)}, but the scene has {', '.join(scene.titles())}")
    return {title: (u, v) for title, (u, v) in points.items() if 0 <= u < 1 and 0 <= v < 1}
