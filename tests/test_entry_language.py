"""Claims about telling the language of short texts."""

import pytest

from instructvla.training.annotation.entry_language import content_words, language_of


@pytest.mark.parametrize(
    "text",
    [
        "Put the spoon on the tray.",
        "Retrieve the tangerine-colored can.",
        "White.",
        "grasp lemon",
        "It isn't the cup's lid.",
    ],
)
def test_english_is_english(text):
    assert language_of(text, ["en"]) == "en"


@pytest.mark.parametrize(
    "text",
    ["Pon la cuchara en el plato.", "Ich werde die Schublade schließen.", "je veux le plateau", "把勺子放在托盘上"],
)
def test_other_languages_are_not_english(text):
    assert language_of(text, ["en"]) is None


def test_the_best_of_several_languages_is_told():
    assert language_of("mets la cuillère sur le plateau", ["en", "fr"]) == "fr"
    assert language_of("put the spoon on the tray", ["en", "fr"]) == "en"


def test_names_belong_to_any_language():
    assert language_of("grab rxbar", ["en"]) is None
    assert language_of("grab rxbar", ["en"], names={"rxbar"}) == "en"
    assert content_words("The Pepsi is here. Take it") == ["The", "is", "here", "Take", "it"]


def test_a_language_without_dictionary_is_refused():
    with pytest.raises(ValueError, match="'xx' is no language with a dictionary; give some of .*en.*fr"):
        language_of("hello", ["xx"])
