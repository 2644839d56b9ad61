import re

import numpy as np
import pytest

from instructvla.evaluation.tabletop.meanings import all_titles, phrase_file, purposes
from instructvla.evaluation.tabletop.phrases import Group, expressions
from instructvla.evaluation.tabletop.questions import facts
from instructvla.evaluation.tabletop.scene_chats import located, meanings_of_words, scene_chats, translation
from instructvla.evaluation.tabletop.view import View
from tests.tabletop_scenes import in_a_row, sampled


def chats(scene, points=None, split="train", seed=0):
    return scene_chats(scene, np.random.default_rng(seed), split, points)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[\w'-]+", text.lower()))


def test_all_things_are_located_in_the_order_of_the_question():
    """The order is by chance, and so tells nothing of the places."""
    view = View.of_scene(in_a_row("apple", "fork"), {"fork": (0.7, 0.5), "apple": (0.05, 0.999)})
    asked = {located(view, "train", np.random.default_rng(seed))[1] for seed in range(40)}
    assert asked == {
        "apple 05 99, fork 70 50.", "fork 70 50, apple 05 99.", "05 99 apple, 70 50 fork.", "70 50 fork, 05 99 apple."
    }  # fmt: skip
    for seed in range(20):
        question, answer = located(view, "test", np.random.default_rng(seed))
        parts = [" ".join(part.split()[:1] if part[0].isalpha() else part.split()[:2]) for part in answer.split(", ")]
        assert ", ".join(parts) in question


def test_without_points_nothing_is_said_of_places():
    assert not any(re.search(r"\d", answer) for _, answer in chats(in_a_row("apple", "fork")))


def test_a_scene_has_chats_of_every_sort():
    for scene, _ in sampled(20, "train"):
        given = chats(scene, {title: (0.5, 0.5) for title in scene.titles()})
        assert len(given) >= 16
        assert len({question for question, _ in given}) == len(given)


def test_chats_are_drawn_by_the_seed():
    scene, _ = next(sampled(1, "train"))
    assert chats(scene) == chats(scene) != chats(scene, seed=1)


def test_everything_is_translated_from_and_to_english():
    given = [(fact.slots, fact.answer) for fact in translation("apple")]
    assert ({"foreign": "la pomme"}, "the apple.") in given
    assert ({"title": "apple", "language": "Spanish"}, "la manzana.") in given


def test_words_of_test_instructions_occur_in_training_ones_or_in_chats():
    known = {"leftmost", "rightmost"}  # "{side}most", in the train forms of "outermost"
    for fact in meanings_of_words():
        known |= words_of(" ".join((*fact.slots.values(), fact.answer)))
    for forms in phrase_file("questions")["train"].values():
        known |= {word for form in forms for word in words_of(form)}
    for title in all_titles():
        known |= words_of(
            " ".join(value for fact in translation(title) for value in (*fact.slots.values(), fact.answer))
        )
    for purpose in (*purposes("needs"), *purposes("jobs")):
        known |= words_of(" ".join((*purpose.facts, *purpose.sentences["train"])))
    for scene, task in sampled(200, "train"):
        for group in Group:
            known |= {word for text in expressions(group, scene, task, "train") for word in words_of(text)}
    for scene, task in sampled(200, "test"):
        for group in Group:
            for text in expressions(group, scene, task, "test"):
                assert words_of(text) <= known, text


def test_facts_of_chats_are_those_of_the_scene():
    scene = in_a_row("apple", "fork")
    known = {fact.answer for fact in facts(View.of_scene(scene), "train")}
    words = {fact.answer for fact in meanings_of_words()}
    for question, answer in chats(scene):
        is_translation = re.search(r"French|Spanish|English|mean|another word|what is (l[ae]|el) |what is l'", question)
        assert answer in known | words or is_translation or answer == "an apple and a fork."


def test_unknown_splits_and_points_are_refused():
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        chats(in_a_row("apple"), split="valid")
    with pytest.raises(ValueError, match="points of lemon"):
        chats(in_a_row("apple"), {"lemon": (0.5, 0.5)})
