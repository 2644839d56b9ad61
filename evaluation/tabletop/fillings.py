"""What fills the slots of a group's templates in a scene: only words by which exactly the task is meant."""

from collections.abc import Callable, Iterator

from instructvla.evaluation.tabletop.catalogue import DRAWER
from instructvla.evaluation.tabletop.meanings import (
    Fit,
    colour_is,
    exclusions,
    fitting,
    nouns,
    only,
    phrase_file,
    purposes,
)
from instructvla.evaluation.tabletop.references import Filling, references
from instructvla.evaluation.tabletop.scene import Scene, Skill, Task

FLAT = ("plate", "tray")  # things go on them, and into the others
DRAWER_OPEN = 0.5  # of its way; from there on it can receive things
ALWAYS: Filling = {}

Fillings = Callable[[Scene, Task, str], Iterator[Filling]]


def task_slots(task: Task) -> Filling:
    """What every group may say of a task."""
    filling = {"target": task.target, "command": task.instruction()}
    if task.destination is not None:
        filling["destination"] = task.destination
        if task.skill is not Skill.MOVE_NEAR:
            filling["place"] = f"{'on' if task.skill is Skill.PUT_ON else 'in'} the {task.destination}"
    return filling


def plain(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    yield ALWAYS


def attribute_fillings(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    if task.target != DRAWER:
        yield from ({"reference": words} for words in references(scene, task.target, split, task.destination))


def goal_fillings(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    """Needs that the target alone meets; wants that the drawer meets."""
    if task.target == DRAWER:
        yield from ({"want": words} for words in phrase_file("meanings")[task.skill][split])
        return
    for need in purposes("needs"):
        if only(scene, need.meaning) == task.target:
            yield from ({"need": words} for words in need.sentences[split])
            if need.something:
                yield {"something": need.something}


def job_fillings(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    for job in purposes("jobs"):
        if task.target != DRAWER and only(scene, job.meaning) == task.target:
            yield from ({"job": words} for words in job.sentences[split])


def negation_fillings(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    if task.target == DRAWER:
        yield ALWAYS
    else:
        yield from twin_fillings(scene, task)
        yield from exclusion_fillings(scene, task, split)
    yield from ({"bystander": title} for title in bystanders(scene, task))
    if task.skill in (Skill.PUT_IN, Skill.PUT_ON):
        places = (place for title, place in receiving_places(scene) if title != task.destination)
        yield from ({"bad_place": place} for place in places)


def twin_fillings(scene: Scene, task: Task) -> Iterator[Filling]:
    """Nouns that leave the target when another thing, or another colour, is ruled out."""
    titles = scene.titles()
    for noun in phrase_file("words")["plurals"]:  # what can be counted: "a fruit that is not the apple"
        surely, perhaps = fitting(scene, [nouns()[noun]])
        others = [title for title in surely if title != task.target]
        if task.target not in surely or perhaps or not others:
            continue
        if len(others) == 1:
            yield {"noun": noun, "twin": others[0]}
        colour = titles[others[0]].colour
        is_such = colour_is(colour)
        if is_such(titles[task.target]) is Fit.NO and all(is_such(titles[title]) is Fit.YES for title in others):
            yield {"noun": noun, "no_colour": colour}


def exclusion_fillings(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    """Needs that several things meet, of which one word rules out all but the target."""
    titles = scene.titles()
    for need in purposes("needs"):
        surely, perhaps = fitting(scene, [need.meaning])
        others = [title for title in (*surely, *perhaps) if title != task.target]
        if task.target not in surely or not others:
            continue
        for word, meaning in exclusions().items():
            if meaning(titles[task.target]) is Fit.NO and all(meaning(titles[title]) is Fit.YES for title in others):
                yield from ({"need": words, "excluded": word} for words in need.sentences[split])


def subtask_fillings(scene: Scene, task: Task, split: str) -> Iterator[Filling]:
    yield ALWAYS
    yield from ({"later": command} for command in later_commands(scene, task))
    yield from ({"bystander": title} for title in bystanders(scene, task))
    if task.skill is Skill.PICK_UP:
        yield from ({"elsewhere": place} for _, place in receiving_places(scene))
        yield from ({"elsewhere": f"near the {title}"} for title in bystanders(scene, task))


def later_commands(scene: Scene, task: Task) -> Iterator[str]:
    """Commands that can follow the task."""
    others = bystanders(scene, task)
    for title in others:
        yield Task(Skill.PICK_UP, title).instruction()
    for destination, place in receiving_places(scene):
        if destination != task.destination and not (destination == DRAWER and task.skill is Skill.CLOSE):
            yield from (f"put the {title} {place}" for title in others)
    if task.skill is Skill.OPEN:
        yield from (f"put the {title} in the {DRAWER}" for title in others)
    elif scene.drawer is not None and task.target != DRAWER:
        yield Task(Skill.CLOSE if drawer_is_open(scene) else Skill.OPEN, DRAWER).instruction()


def bystanders(scene: Scene, task: Task) -> list[str]:
    """Titles of the things that the task has nothing to do with."""
    return [title for thing in scene.things if (title := scene.title(thing)) not in (task.target, task.destination)]


def receiving_places(scene: Scene) -> list[tuple[str, str]]:
    """(title, place in words) of all that things can be put in or on now."""
    titles = {scene.title(placed): placed.item for placed in scene.receptacles}
    places = [(title, f"{'on' if item in FLAT else 'in'} the {title}") for title, item in titles.items()]
    return [*places, (DRAWER, f"in the {DRAWER}")] if drawer_is_open(scene) else places


def drawer_is_open(scene: Scene) -> bool:
    return scene.drawer is not None and scene.drawer >= DRAWER_OPEN
