import re
from collections import Counter

import numpy as np
import pytest

from instructvla.evaluation.tabletop.catalogue import ITEMS
from instructvla.evaluation.tabletop.meanings import SPLITS, phrase_file
from instructvla.evaluation.tabletop.phrases import MAX_WORDS
from instructvla.evaluation.tabletop.questions import KINDS, NUMBERS, asked, caption, draw_questions, facts, grid_place
from instructvla.evaluation.tabletop.view import View
from instructvla.evaluation.tabletop.world_state import ObjectState
from instructvla.training.annotation.categories import QUESTION_CATEGORIES
from tests.tabletop_scenes import in_a_row, resting_state, sampled

SCENE = in_a_row("apple", "lemon", "fork", "letter A", receptacles=("white bowl",), drawer=0.0)


def answers(view: View, kind: str, **slots: str) -> list[str]:
    return [fact.answer for fact in facts(view, "train") if fact.kind == kind and slots.items() <= fact.slots.items()]


def test_captions_go_from_left_to_right():
    assert caption(View.of_scene(SCENE)) == ("an apple, a lemon, a fork, a letter A, a white bowl and a closed drawer.")


def test_counts_are_those_of_the_catalogue():
    for scene, _ in sampled(40, "train"):
        kinds = Counter(ITEMS[thing.item].kind for thing in scene.things)
        for noun, plural in (("vegetable", "vegetables"), ("letter", "letters")):
            (answer,) = answers(View.of_scene(scene), "count", nouns=plural)
            assert answer.split()[0] == NUMBERS[kinds[noun]]


def test_colours_are_those_of_the_scene():
    for scene, _ in sampled(40, "test"):
        view, titles = View.of_scene(scene), scene.titles()
        for fact in facts(view, "test"):
            if fact.kind == "colour":
                assert fact.answer == f"{titles[fact.slots['title']].colour}."
            if fact.kind == "count_colour":
                number = sum(placed.colour == fact.slots["colour"] for placed in titles.values())
                assert fact.answer.split()[0] == NUMBERS[number]
            if fact.kind == "which_colour":
                assert titles[fact.answer.removeprefix("the ").rstrip(".")].colour == fact.slots["colour"]


def test_sides_agree_with_the_pictures_points():
    points = {"apple": (0.8, 0.5), "lemon": (0.2, 0.5)}
    view = View.of_scene(in_a_row("lemon", "apple"), points)
    assert answers(view, "beside", title="apple", other="lemon") == ["right."]
    mirrored = View.of_scene(in_a_row("apple", "lemon"), points)
    assert not answers(mirrored, "beside")  # table and picture disagree: nothing is clear


def test_places_are_columns_and_rows():
    view = View.of_scene(SCENE, {"apple": (0.349, 0.07)})
    assert answers(view, "place", title="apple") == ["the apple is at 34 07."]
    assert answers(view, "at_place", place="34 07") == ["the apple."]
    assert grid_place((0.349, 0.07), digits=1) == "3 0"


def test_a_cabinet_on_the_left_is_further_left_than_things():
    assert answers(View.of_scene(in_a_row("apple", "fork")), "outermost", side="right") == ["the fork."]
    assert not answers(View.of_scene(in_a_row("apple", "fork", drawer=0.0)), "outermost", side="right")


def test_nothing_that_changes_is_asked():
    inside = ObjectState(0.4, 0.3, 0.03, support="drawer")
    view = View.of_states(SCENE, [resting_state(SCENE, 1.0), resting_state(SCENE, 0.5, apple=inside)])
    said = facts(view, "train")
    assert not [fact for fact in said if fact.kind in ("drawer", "neighbour", "outermost")]
    assert not [fact for fact in said if fact.slots.get("title") == "apple" or fact.answer == "the apple."]
    assert not [fact for fact in said if fact.slots.get("nouns") == "fruits"]  # one of two is hidden


def test_states_are_told_as_they_are():
    view = View.of_scene(SCENE)
    assert answers(view, "drawer") == ["the drawer is closed."]
    assert answers(view, "empty", title="white bowl") == ["the white bowl is empty."]
    assert answers(view, "support", title="apple") == ["on the table."]
    filled = ObjectState(0.5, 0.3, 0.04, support="white bowl")
    view = View.of_states(SCENE, [resting_state(SCENE, lemon=filled)])
    assert not answers(view, "empty") and not answers(view, "support", title="lemon", elsewhere="on the white plate")


def test_common_sense_names_all_that_fits_and_admits_that_nothing_does():
    view = View.of_scene(in_a_row("water bottle", "cola can", "sponge"))
    assert answers(view, "fact", question="what can I drink now?") == ["the water bottle and the cola can."]
    assert answers(view, "fact", question="what can I write with?") == ["nothing here."]
    assert answers(view, "fact", question="which drink has bubbles?") == ["the cola can."]


@pytest.mark.parametrize("split", SPLITS)
def test_drawn_questions_are_short_and_spread_over_their_kinds(split):
    rng = np.random.default_rng(0)
    for scene, _ in sampled(20, split):
        found = facts(View.of_scene(scene), split)
        kinds = {fact.kind for fact in found}
        drawn = draw_questions(found, split, len(kinds), rng)
        assert len({asked(fact, split, rng).split()[0] for fact in found}) > 1
        assert len(drawn) == len(kinds)
        assert all(len(question.split()) <= MAX_WORDS + 4 and answer.endswith(".") for question, answer in drawn)


def test_what_is_denied_is_at_most_half():
    found = [fact for fact in facts(View.of_scene(SCENE), "train") if fact.kind == "count"]
    drawn = draw_questions(found, "train", len(found), np.random.default_rng(0))
    denied = sum(answer.startswith("no ") for _, answer in drawn)
    assert 0 < denied <= len(drawn) / 2


def test_questions_of_train_and_test_are_disjoint():
    forms = {split: phrase_file("questions")[split] for split in SPLITS}
    assert forms["train"].keys() == forms["test"].keys() >= KINDS.keys()
    for kind in forms["train"]:
        assert not set(forms["train"][kind]) & set(forms["test"][kind])


def test_every_category_of_the_paper_is_asked():
    assert set(KINDS.values()) == set(QUESTION_CATEGORIES)
    assert all(re.fullmatch(r"[A-Z][a-z]+ (Identification|Answering)", category) for category in QUESTION_CATEGORIES)
