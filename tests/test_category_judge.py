import asyncio

import pytest

from instructvla.training.annotation.annotation_census import SampledText
from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_judge import TEXTS_EACH, judgement_text, label_texts
from instructvla.training.annotation.chat_endpoint import EndpointError
from tests.annotated_texts import FAILURE, Answering, labelled

DIRECT, NOVEL, SPATIAL = (
    Category.DIRECT_INSTRUCTION,
    Category.NOVEL_ACTION_REFERENCING,
    Category.SPATIAL_IDENTIFICATION,
)
INSTRUCTIONS = [
    SampledText(False, "fetch the mug", "pick up the mug", NOVEL),
    SampledText(False, "please pick up\nthe mug", "pick up the mug", DIRECT),
]
QUESTION = SampledText(True, "where is the mug?", None, SPATIAL)


def judged(endpoint, texts):
    return asyncio.run(label_texts(endpoint, texts))


def test_the_models_categories_stand_beside_those_of_the_rules():
    endpoint = Answering(labelled(NOVEL, NOVEL), labelled(SPATIAL))
    found = judged(endpoint, [*INSTRUCTIONS, QUESTION])
    assert found.agreement.pairs == {(NOVEL, NOVEL): 1, (DIRECT, NOVEL): 1, (SPATIAL, SPATIAL): 1}
    assert (found.prompt_tokens, found.completion_tokens, found.unanswered) == (200, 20, 0)


def test_instructions_and_questions_are_asked_apart_with_their_categories_alone():
    endpoint = Answering(labelled(NOVEL, NOVEL), labelled(SPATIAL))
    judged(endpoint, [INSTRUCTIONS[0], QUESTION, INSTRUCTIONS[1]])
    (first, schema), (second, _) = endpoint.asked
    assert first[1]["content"] == "1. fetch the mug [pick up the mug]\n2. please pick up the mug [pick up the mug]"
    assert second[1]["content"] == "1. where is the mug?"
    assert len(schema["properties"]["labels"]["items"]["properties"]["category"]["enum"]) == 7
    assert "Spatial" not in first[0]["content"] and "Spatial" in second[0]["content"]


def test_many_texts_are_asked_in_several_requests():
    endpoint = Answering(labelled(*[NOVEL] * TEXTS_EACH))
    found = judged(endpoint, [INSTRUCTIONS[0]] * (TEXTS_EACH + 1))
    assert len(endpoint.asked) == 2 and found.agreement.rate.trials == TEXTS_EACH + 1


@pytest.mark.parametrize(
    ("answer", "unanswered", "problem"),
    [
        ("no JSON", 2, "not the JSON"),
        (labelled(NOVEL), 1, "lacks 1 of 2"),
        (labelled(NOVEL, "Nonsense"), 1, "lacks 1 of 2"),
        (f"Sure: ```{labelled(NOVEL, DIRECT)}```", 0, None),
        (FAILURE, 2, "can't be reached"),
    ],
)
def test_texts_without_a_usable_category_are_counted_with_the_reason(answer, unanswered, problem):
    found = judged(Answering(answer), INSTRUCTIONS)
    assert found.unanswered == unanswered
    assert found.problem is None if problem is None else problem in found.problem
    assert (problem or "110 tokens") in judgement_text(found, "model") or problem is None


def test_an_endpoint_that_can_t_be_used_ends_it():
    with pytest.raises(EndpointError, match="no key"):
        judged(Answering(EndpointError("no key")), INSTRUCTIONS)
