from instructvla.training.annotation.categories import (
    INSTRUCTION_CATEGORIES,
    MEANINGS,
    QUESTION_CATEGORIES,
    Category,
)


def test_there_are_seven_categories_of_instructions_and_five_of_questions_each_with_its_meaning():
    assert len(INSTRUCTION_CATEGORIES) == 7 and len(QUESTION_CATEGORIES) == 5
    assert (*INSTRUCTION_CATEGORIES, *QUESTION_CATEGORIES) == tuple(Category) == tuple(MEANINGS)


def test_only_questions_are_identified_or_answered():
    assert all(category.endswith(("Identification", "Answering")) for category in QUESTION_CATEGORIES)
    assert Category.DIRECT_INSTRUCTION in INSTRUCTION_CATEGORIES
