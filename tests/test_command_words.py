import pytest

from instructvla.training.annotation.command_words import Command, base_verb, commands, word_list, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pick up the apple", [("pick", "apple")]),
        ("Could you please put the red block on the tray?", [("put", "block")]),
        ("First open the drawer, then place the spoon next to it.", [("open", "drawer"), ("place", "spoon")]),
        ("Start by moving the small spoon to the tray.", [("move", "spoon")]),
        ("take one of the cups", [("take", "cups")]),
        ("put it down", [("put", None)]),
        ("I'd like you to close the middle drawer", [("close", "drawer")]),
        ("My mouth is dry.", []),
        ("prends la pomme", []),
    ],
)
def test_commands_are_the_verbs_and_what_they_are_done_to(text, found):
    assert list(commands(text)) == [Command(*pair) for pair in found]


def test_words_are_those_of_any_language_without_numbers():
    assert words("L’orange, 2 Äpfel — sugar-free!") == ["l'orange", "äpfel", "sugar-free"]


@pytest.mark.parametrize(
    ("form", "verb"), [("putting", "put"), ("moving", "move"), ("opening", "open"), ("ring", None)]
)
def test_ing_forms_are_found(form, verb):
    assert base_verb(form) == verb


def test_words_that_yaml_takes_for_truth_values_stay_words():
    everything = [word for name in ("boundaries", "fillers", "verbs", "openings") for word in word_list(name)]
    assert {"on", "off", "no"} <= set(everything)
    assert not {"True", "False"} & set(everything)
