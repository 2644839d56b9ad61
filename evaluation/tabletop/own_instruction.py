"""A user's own instruction: a scene for it to make sense in, and the task that it means there, if there is a rule."""

from collections.abc import Iterator, Mapping

import numpy as np

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES, Item
from instructvla.evaluation.tabletop.instruct import Trial, instruct_task, trial
from instructvla.evaluation.tabletop.phrases import Group, expressions, handles_unseen
from instructvla.evaluation.tabletop.rollout import Assignment
from instructvla.evaluation.tabletop.sampling import SPLITS, Kinded, arrange, sample_scene, with_distractors
from instructvla.evaluation.tabletop.scene import Placed, Scene, Skill, Task
from instructvla.evaluation.tabletop.success import destinations_of, targets_of

SCENES = 25  # sampled for an instruction that names nothing
THINGS = 3  # on the table, at least
NEED_DESTINATION = (Skill.PUT_IN, Skill.PUT_ON, Skill.MOVE_NEAR)
HALF = 0.5  # of the drawer's way
OWN = "own instruction"


def own_assignment(instruction: str, seed: int, scene_of: str | None = None) -> Assignment:
    """An episode with an instruction of one's own; it is judged if the instruction means a task in its scene.

    Args:
        instruction: anything.
        seed: of the scene; the same one gives the same episode.
        scene_of: a task of the benchmark whose scenes to take; default: one with the things that the instruction
            names.

    Raises:
        ValueError: for an empty instruction, a negative seed or an unknown task.
    """
    if not instruction.strip():
        raise ValueError('the instruction is empty; say what to do, such as "pick up the apple".')
    if seed < 0:
        raise ValueError(f"the seed must be 0 or more, got {seed}.")
    if scene_of is None:
        scene = scene_for(instruction, seed)
        some_task = next(tasks_in(scene))  # an environment has one, judged or not
    else:
        given = trial(instruct_task(scene_of), seed)
        scene, some_task = given.scene, given.task
        if plain(instruction) == plain(given.instruction):
            return Assignment(OWN, seed, given)
    task = meant_task(instruction, scene)
    return Assignment(OWN, seed, Trial(seed, scene, task or some_task, instruction), judged=task is not None)


def scene_for(instruction: str, seed: int) -> Scene:
    """A scene with what an instruction names and other things; a sampled one if it names nothing in English.

    Raises:
        ValueError: if so much is named that the table is too small for it.
    """
    rng, text = np.random.default_rng(seed), f" {plain(instruction)} "
    things, receptacles = named(rng, text, ITEMS), named(rng, text, RECEPTACLES)
    has_drawer = f" {DRAWER} " in text
    if not things and not receptacles and not has_drawer:
        return sampled_scene_for(instruction, rng)
    things = with_distractors(rng, things, list(ITEMS), max(THINGS, len(things)))
    receptacles = with_distractors(rng, receptacles, list(RECEPTACLES), max(1, len(receptacles)))
    is_closed = " open " in text and " in the " not in text
    drawer = float(not is_closed) if has_drawer else None
    bare = [tuple(Placed(*one, (0.0, 0.0)) for one in some) for some in (things, receptacles)]
    return arrange(rng, "train", things, receptacles, drawer, meant_task(instruction, Scene(*bare, drawer)))


def sampled_scene_for(instruction: str, rng: np.random.Generator) -> Scene:
    """A sampled scene in which the instruction means a task, if one is found soon."""
    for _ in range(SCENES):
        scene, _ = sample_scene(rng, "train")
        task = meant_task(instruction, scene)
        if task is not None and not handles_unseen(scene, task):
            break
    return scene


def named(rng: np.random.Generator, text: str, items: Mapping[str, Item]) -> list[Kinded]:
    """(item, colour) of what a text names, in the colours that it says, if it does."""
    found = []
    for item in items.values():
        if f" {item.name.lower()} " in text:
            said = [colour for colour in item.colours if f" {colour} {item.name.lower()} " in text]
            found += [(item.name, colour) for colour in said or [str(rng.choice(item.colours))]]
    return found


def meant_task(instruction: str, scene: Scene) -> Task | None:
    """The task that an instruction means in a scene, as the phrases know it; None if they don't."""
    text = plain(instruction)
    tasks = list(tasks_in(scene))
    for task in tasks:
        if text == plain(task.instruction()):
            return task
    for task in tasks:
        for split in SPLITS:
            if any(text == plain(one) for group in Group for one in expressions(group, scene, task, split)):
                return task
    return None


def tasks_in(scene: Scene) -> Iterator[Task]:
    """Everything that can be done in a scene as it is."""
    for skill in Skill:
        for target in targets_of(skill, scene):
            destinations = destinations_of(Task(skill, target), scene)
            for destination in destinations or [None]:
                task = Task(skill, target, destination)
                if (skill not in NEED_DESTINATION or destinations) and drawer_is_ready(task, scene):
                    yield task


def drawer_is_ready(task: Task, scene: Scene) -> bool:
    """Whether the drawer is open where the task needs it open, and closed where it is to be opened."""
    if task.skill is Skill.OPEN:
        return scene.drawer < HALF
    return DRAWER not in (task.target, task.destination) or scene.drawer > HALF


def plain(text: str) -> str:
    """In lower case, without punctuation, words one space apart."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def listed_things(scene: Scene) -> str:
    """What stands on the table, in words."""
    things = [scene.title(placed) for placed in scene.things]
    receptacles = [scene.title(placed) for placed in scene.receptacles]
    cabinet = [] if scene.drawer is None else [f"drawer ({'open' if scene.drawer > HALF else 'closed'})"]
    return ", ".join([*things, *receptacles, *cabinet])
