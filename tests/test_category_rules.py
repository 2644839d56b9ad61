import pytest

from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_rules import (
    instruction_category,
    question_category,
    without_announcement,
)


@pytest.mark.parametrize(
    ("text", "original", "category"),
    [
        ("lift the crimson object by the window", "pick up the mug", Category.COMPLEX_OBJECT_REFERENCING),
        ("pick up the mug next to the kettle", "pick up the mug", Category.COMPLEX_OBJECT_REFERENCING),
        ("slide the copper-hued can to the edge", "move the can to the edge", Category.COMPLEX_OBJECT_REFERENCING),
        ("drop the mug in the sink", "put the mug in the sink", Category.NOVEL_ACTION_REFERENCING),
        ("pick up the mug, but don't touch the kettle", "pick up the mug", Category.NEGATIVE_TASK_SPECIFICATION),
        ("Take any cup other than the blue one", "pick up the mug", Category.NEGATIVE_TASK_SPECIFICATION),
        ("rinse the mug, then dry it: do the first step", "wash the mug", Category.SUBTASK_IDENTIFICATION),
        ("I'm freezing. What would warm me?", "pick up the mug", Category.SITUATED_TASK_IDENTIFICATION),
        ("hand me something to cut with", "pick up the knife", Category.TOOL_USE_UNDERSTANDING),
        ("could you please pick up the mug for me?", "pick up the mug", Category.DIRECT_INSTRUCTION),
        ("prends la tasse", "pick up the mug", Category.DIRECT_INSTRUCTION),
    ],
)
def test_instructions_get_the_category_that_their_words_tell(text, original, category):
    assert instruction_category(text, original) is category


def test_without_the_original_no_action_is_called_new():
    assert instruction_category("drop the mug in the sink") is Category.DIRECT_INSTRUCTION


@pytest.mark.parametrize(
    ("question", "category"),
    [
        ("How many cups are there?", Category.QUANTITATIVE_IDENTIFICATION),
        ("Is the cup left or right of the plate?", Category.SPATIAL_IDENTIFICATION),
        ("Where's the kettle?", Category.SPATIAL_IDENTIFICATION),
        ("What colour is the kettle?", Category.VISUAL_IDENTIFICATION),
        ("Which things do you see?", Category.VISUAL_IDENTIFICATION),
        ("What is the kettle used for?", Category.COMMONSENSE_ANSWERING),
        ("What should I use to cut paper?", Category.COMMONSENSE_ANSWERING),
        ("Is the drawer open or closed right now?", Category.STATE_IDENTIFICATION),
    ],
)
def test_questions_get_the_category_that_their_words_tell(question, category):
    assert question_category(question) is category


def test_an_answer_becomes_the_command_that_it_restates():
    assert without_announcement("Okay, I’ll put the spoon on the tray.") == "put the spoon on the tray"
    assert without_announcement("The apple.") == "the apple"
