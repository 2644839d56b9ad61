"""When a task counts as done. One rule per skill, from the world's state alone."""

from math import dist

from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.scene import Scene, Skill, Task
from instructvla.evaluation.tabletop.world_state import TABLE, WorldState

LIFTED = 0.07  # m above where it stood
NEAR = 0.15  # m between centres, on the table
LET_GO = 0.75  # opening of the gripper
OPENED, CLOSED = 0.80, 0.10  # of the drawer's travel


def succeeded(task: Task, start: WorldState, now: WorldState) -> bool:
    """Whether a task is done.

    Pick up: held, and 7 cm above where it stood. Put in and on: let go, at rest, and supported by the destination.
    Move near: let go, at rest on the table, and at most 15 cm from the other thing. Open: the drawer at 80 % of its
    travel or more; close: at 10 % or less.

    Args:
        task: what to do.
        start: the world's state at the episode's start.
        now: the present one.
    """
    if task.skill is Skill.OPEN:
        return now.drawer >= OPENED
    if task.skill is Skill.CLOSE:
        return now.drawer <= CLOSED
    thing = now.objects[task.target]
    if task.skill is Skill.PICK_UP:
        return thing.held and thing.z - start.objects[task.target].z >= LIFTED
    released = thing.still and not thing.held and now.gripper >= LET_GO
    if task.skill is Skill.MOVE_NEAR:
        return released and thing.support == TABLE and horizontal_distance(now, task.target, task.destination) <= NEAR
    return released and thing.support == task.destination


def horizontal_distance(state: WorldState, one: str, other: str) -> float:
    """Between two centres, in m."""
    return dist(state.objects[one].position[:2], state.objects[other].position[:2])


def check_task(task: Task, scene: Scene) -> None:
    """Whether a scene has what a task needs.

    Raises:
        ValueError: if it hasn't; it lists what could be named instead.
    """
    targets, destinations = targets_of(task.skill, scene), destinations_of(task, scene)
    if task.target not in targets:
        raise ValueError(f"the arm can't {task.skill} the {task.target!r} here; it can: {listed(targets)}.")
    if task.destination is None and destinations:
        raise ValueError(f"{task.skill} needs a destination; here it can be: {listed(destinations)}.")
    if task.destination is not None and task.destination not in destinations:
        raise ValueError(
            f"{task.skill} can't have the destination {task.destination!r} here; {listed(destinations)} can."
        )


def targets_of(skill: Skill, scene: Scene) -> list[str]:
    """Titles of what a skill can be done with."""
    if skill in (Skill.OPEN, Skill.CLOSE):
        return [] if scene.drawer is None else [DRAWER]
    return [scene.title(placed) for placed in scene.things]


def destinations_of(task: Task, scene: Scene) -> list[str]:
    """Titles of where a task's target can go; none for skills without destination."""
    if task.skill is Skill.MOVE_NEAR:
        return [title for title in targets_of(task.skill, scene) if title != task.target]
    if task.skill not in (Skill.PUT_IN, Skill.PUT_ON):
        return []
    receptacles = [scene.title(placed) for placed in scene.receptacles]
    return receptacles + ([DRAWER] if scene.drawer is not None and task.skill is Skill.PUT_IN else [])


def listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
