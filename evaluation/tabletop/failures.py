"""Why an episode failed, told from the simulator's states by rules, so that causes can be counted."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import dist

from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.phrases import response
from instructvla.evaluation.tabletop.scene import Task
from instructvla.evaluation.tabletop.world_state import WorldState

REACHED = 0.05  # m between the finger tips and the target's middle
MOVED_DRAWER = 0.10  # of its travel


class Cause(StrEnum):
    """In words, as a report gives them."""

    BROKE_OFF = "gave an action that the arm refuses"
    OTHER_WORDS = "said that it would do something else"
    OTHER_THING = "took another thing"
    NEVER_NEAR = "never came near the target"
    MISSED = "came near the target and did not get hold of it"
    LOST = "lost the target"
    NOT_BROUGHT = "held the target to the end"
    ELSEWHERE = "let the target go elsewhere"
    NOT_FAR_ENOUGH = "moved the drawer, but not far enough"


@dataclass
class EpisodeHistory:
    """What of an episode tells why it failed.

    Args:
        task: what was to be done.
        start: the world's state at the episode's start.
        held: titles of all things that the gripper held so far.
        nearest: m, the smallest distance of the finger tips from the target, or the drawer's handle, so far.
        now: the last state.
    """

    task: Task
    start: WorldState
    held: set[str] = field(default_factory=set)
    nearest: float = float("inf")
    now: WorldState | None = None

    def __post_init__(self):
        self.see(self.start)

    def see(self, state: WorldState) -> None:
        """One more moment."""
        self.now = state
        place = state.handle if self.task.target == DRAWER else state.objects[self.task.target].position
        self.nearest = min(self.nearest, dist(state.tcp[:3], place))
        if (held := state.held()) is not None:
            self.held.add(held)

    def cause(self, said: str | None = None, error: str | None = None) -> Cause:
        """Why the task isn't done.

        Args:
            said: the policy's last response; None if it doesn't speak.
            error: why the episode broke off.
        """
        if error is not None:
            return Cause.BROKE_OFF
        if said is not None and said.strip().lower() != response(self.task).lower():
            return Cause.OTHER_WORDS
        if self.task.target == DRAWER:
            return self._drawer_cause()
        if self.task.target in self.held:
            return self._after_holding()
        if self.held:
            return Cause.OTHER_THING
        return Cause.MISSED if self.nearest <= REACHED else Cause.NEVER_NEAR

    def _drawer_cause(self) -> Cause:
        if self.held:
            return Cause.OTHER_THING
        if abs(self.now.drawer - self.start.drawer) >= MOVED_DRAWER:
            return Cause.NOT_FAR_ENOUGH
        return Cause.MISSED if self.nearest <= REACHED else Cause.NEVER_NEAR

    def _after_holding(self) -> Cause:
        if self.now.objects[self.task.target].held:
            return Cause.NOT_BROUGHT
        return Cause.LOST if self.task.destination is None else Cause.ELSEWHERE
