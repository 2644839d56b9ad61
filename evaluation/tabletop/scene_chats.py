"""Conversations about pictures of the table, without any task: what the tiny vision-language model learns first."""

from collections.abc import Mapping

import numpy as np

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.meanings import check_split, phrase_file
from instructvla.evaluation.tabletop.questions import Fact, asked, caption, draw_questions, facts, grid_place
from instructvla.evaluation.tabletop.scene import Scene
from instructvla.evaluation.tabletop.translations import LANGUAGES, translated
from instructvla.evaluation.tabletop.view import Point, View
from instructvla.training.annotation.categories import QUESTION_CATEGORIES

EACH = 2  # questions of each category
WORDS_EACH = 2  # translations and meanings of words
BY_NAME = 2 / 3  # of the questions about everything; the others ask by place


def scene_chats(
    scene: Scene, rng: np.random.Generator, split: str, points: Mapping[str, Point] | None = None
) -> list[tuple[str, str]]:
    """(question, answer) about a picture of the scene before anything moves, and about words.

    Args:
        split: whose questions are used, "train" or "test".
        points: title → (u, v) in the picture, each 0 to 1 from the upper left corner. With them the places of things
            are asked, as column and row of a grid of 100 by 100: "the apple is at 34 07.".

    Raises:
        ValueError: an unknown split, or a point of something that isn't in the scene.
    """
    check_split(split)
    view = View.of_scene(scene, points)
    found = facts(view, split)
    chats = [(asked(Fact("caption", {}, ""), split, rng), caption(view))]
    for category in QUESTION_CATEGORIES:
        chats += draw_questions([fact for fact in found if fact.category is category], split, EACH, rng)
    words = [*translations(scene), *translations_of_all(rng), *meanings_of_words()]
    return [*chats, *draw_questions(words, split, WORDS_EACH * 3, rng)]


def located(view: View, split: str, rng: np.random.Generator) -> tuple[str, str]:
    """Where all things are, and every third time what is at all places.

    The question names them in an order by chance, so that only the picture tells the answer.

    Args:
        view: with points.
        split: whose questions are used, "train" or "test".
    """
    titles = [str(title) for title in rng.permutation(sorted(view.points))]
    places = [grid_place(view.points[title]) for title in titles]
    if rng.random() < BY_NAME:
        fact, given, wanted = Fact("places", {"titles": ", ".join(titles)}, ""), titles, places
    else:
        fact, given, wanted = Fact("at_places", {"places": ", ".join(places)}, ""), places, titles
    return asked(fact, split, rng), f"{', '.join(map(' '.join, zip(given, wanted, strict=True)))}."


def translations(scene: Scene) -> list[Fact]:
    """Names of what is there, from and to English."""
    titles = [*scene.titles(), *([DRAWER] if scene.drawer is not None else [])]
    return [fact for title in titles for fact in translation(title)]


def translations_of_all(rng: np.random.Generator, number: int = 3) -> list[Fact]:
    """Names of anything in the catalogue."""
    items = list((ITEMS | RECEPTACLES).values())
    chosen = [items[index] for index in rng.permutation(len(items))[:number]]
    titles = [f"{rng.choice(item.colours)} {item.name}" if len(item.colours) > 1 else item.name for item in chosen]
    return [fact for title in titles for fact in translation(title)]


def translation(title: str) -> list[Fact]:
    facts_found = []
    for language in LANGUAGES:
        foreign = translated(title, language)
        facts_found.append(Fact("english", {"foreign": foreign}, f"the {title}."))
        facts_found.append(Fact("foreign", {"title": title, "language": language}, f"{foreign}."))
    return facts_found


def meanings_of_words() -> list[Fact]:
    """What words of instructions mean, in any language."""
    glossary = phrase_file("glossary")
    return [Fact("meaning", {"words": words}, f"{meaning}.") for meaning, known in glossary.items() for words in known]
