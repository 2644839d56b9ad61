"""French and Spanish names of what stands on the table."""

from functools import cache

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.meanings import phrase_file
from instructvla.evaluation.tabletop.scene import Skill, Task

LANGUAGES = ("French", "Spanish")
MASCULINE = ("le ", "el ")


@cache
def translated(title: str, language: str) -> str:
    """A title's name with its article: "red block" is "le bloc rouge" in French.

    Raises:
        ValueError: a title or language that there is no translation of.
    """
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}; choose from {', '.join(LANGUAGES)}")
    words = phrase_file("words")["languages"][language]
    if title == DRAWER:
        return words["drawer"]
    if title in words["names"]:
        return words["names"][title]
    colour, _, item = title.partition(" ")
    if item not in words["names"] or colour not in {**ITEMS, **RECEPTACLES}[item].colours:
        raise ValueError(f"there is no {language} name of {title!r}; add it to words.yaml")
    name = words["names"][item]
    return f"{name} {words['colours'][colour][0 if name.startswith(MASCULINE) else 1]}"


def relation(preposition: str, title: str, language: str) -> str:
    """ "dans le bol blanc", "cerca del limón".

    Args:
        preposition: "in", "on" or "near".
    """
    words = phrase_file("words")["languages"][language]
    text = words[preposition].format(name=translated(title, language))
    for apart, together in words["contractions"].items():
        text = text.replace(apart, together)
    return text


def translated_slots(task: Task, language: str) -> dict[str, str]:
    """What a command in a language is made of: target, destination, place and near, as far as the task has them."""
    filling = {"target": translated(task.target, language)}
    if task.destination is not None:
        preposition = {Skill.PUT_IN: "in", Skill.PUT_ON: "on", Skill.MOVE_NEAR: "near"}[task.skill]
        name = "near" if task.skill is Skill.MOVE_NEAR else "place"
        filling["destination"] = translated(task.destination, language)
        filling[name] = relation(preposition, task.destination, language)
    return filling
