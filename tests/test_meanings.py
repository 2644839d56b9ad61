import pytest

from instructvla.evaluation.tabletop.catalogue import ITEMS, Kind
from instructvla.evaluation.tabletop.meanings import (
    as_meaning,
    check_split,
    colour_is,
    exclusions,
    fitting,
    kinded,
    listed,
    nouns,
    only,
    purposes,
    shapes,
    sure_members,
    tastes,
    with_article,
)
from tests.tabletop_scenes import in_a_row

KINDS = {
    "fruit": Kind.FRUIT,
    "vegetable": Kind.VEGETABLE,
    "drink": Kind.DRINK,
    "tool": Kind.TOOL,
    "letter": Kind.LETTER,
}


@pytest.mark.parametrize("noun", KINDS)
def test_nouns_mean_the_kinds_of_the_catalogue(noun):
    assert nouns()[noun].fits == {name for name, item in ITEMS.items() if item.kind is KINDS[noun]}


@pytest.mark.parametrize("words", [shapes, tastes])
def test_shapes_and_tastes_agree_with_the_facts_of_the_catalogue(words):
    for word, meaning in words().items():
        facts = {name for name, item in ITEMS.items() if word in item.facts}
        assert facts <= meaning.fits | meaning.maybe, word
        assert not meaning.fits & meaning.maybe, word


@pytest.mark.parametrize(("word", "fact"), [("soda", "soda"), ("milk", "milk"), ("water", "water"), ("juice", "juice")])
def test_exclusions_agree_with_the_facts_of_the_catalogue(word, fact):
    assert exclusions()[word].fits == {name for name, item in ITEMS.items() if fact in item.facts}


def test_needs_for_a_drink_and_for_food_are_met_by_what_the_catalogue_calls_so():
    by_thing = {need.something: need.meaning for need in purposes("needs")}
    for something, fact in (("something to drink", "drink"), ("something to eat", "food")):
        assert by_thing[something].fits == {name for name, item in ITEMS.items() if fact in item.facts}


@pytest.mark.parametrize("section", ["needs", "jobs"])
def test_sentences_of_train_and_test_are_disjoint(section):
    train, test = (
        [words for one in purposes(section) for words in one.sentences[split]] for split in ("train", "test")
    )
    assert not set(train) & set(test)
    assert len(set(train)) == len(train) and len(set(test)) == len(test)


def test_only_one_thing_is_meant_or_none():
    assert only(in_a_row("apple", "hammer"), nouns()["fruit"]) == "apple"
    assert only(in_a_row("apple", "lemon"), nouns()["fruit"]) is None
    assert only(in_a_row("apple", "lemon"), nouns()["fruit"], colour_is("yellow")) == "lemon"


def test_a_word_that_may_fit_another_thing_means_none():
    scene = in_a_row("apple", "tomato")  # some call a tomato a fruit
    assert only(scene, nouns()["fruit"]) is None
    assert fitting(scene, [nouns()["fruit"]]) == (["apple"], ["tomato"])
    assert sure_members(scene, nouns()["fruit"]) == []


def test_the_brown_cabinet_is_a_thing_too():
    assert only(in_a_row("hammer", "apple"), nouns()["thing"], colour_is("brown")) == "hammer"
    assert only(in_a_row("hammer", "apple", drawer=0.0), nouns()["thing"], colour_is("brown")) is None


def test_letters_have_no_colour_to_speak_of():
    assert only(in_a_row("letter A", "white cup"), nouns()["thing"], colour_is("white")) is None


def test_titles_are_told_from_items_and_colours():
    assert kinded("red block") == ("block", "red")
    assert kinded("apple") == ("apple", "red")
    with pytest.raises(ValueError, match="no 'red blok', the nearest is 'red block'"):
        kinded("red blok")


def test_a_meaning_of_what_is_not_in_the_catalogue_is_refused():
    with pytest.raises(ValueError, match=r"some\.yaml: the catalogue has no pear"):
        as_meaning({"is": ["apple", "pear"]}, "some.yaml")
    with pytest.raises(ValueError, match="unknown split 'valid'"):
        check_split("valid")


def test_names_are_listed_as_english_does():
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    assert with_article("apple") == "an apple" and with_article("banana") == "a banana"
