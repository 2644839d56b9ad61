"""Claims about reading an answer: what is found, what is repaired, and what is refused."""

import json

import pytest
from jsonschema import Draft202012Validator

from instructvla.training.annotation.answer_format import ANSWER_SCHEMA, UnusableAnswerError, parse_answer
from instructvla.training.data.episodes import Annotation, Turn
from tests.annotation_answers import annotation_answer

ANSWER = annotation_answer(3)
TEXT = json.dumps(ANSWER, indent=1)
PROMISE = "I will put object 3 on the plate."
ANNOTATION = Annotation(
    caption="A yellow table on which a plate and object 3 lie.",
    questions=(Turn("What colour does the table have?", "It is yellow."),),
    rewritten=(Turn("Lay object 3 onto the plate, please.", PROMISE),),
    contexts=(Turn("We are setting the table, and thing number 3 is still missing.", PROMISE),),
)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"Here is the annotation:\n```json\n{TEXT}\n```\nI hope that {{this}} helps!",
        f"<think>It should be like {{'caption': …}} or {{}}.</think>{TEXT}",
        f'{{"caption": "a draft"}} No, better:\n{TEXT}',
        TEXT.replace('"\n', '",\n').replace("}\n", "},\n"),  # commas too many
        TEXT.replace('"caption"', "caption").replace('"question"', "'question'"),
        TEXT.rstrip("}\n "),  # closing brackets are missing
        TEXT.replace("object 3 lie.", "object 3\\n  lie."),
        json.dumps(ANSWER | {"description": "more than was asked for"}),
    ],
    ids=["plain", "fenced", "thought", "draft", "commas", "quotes", "unclosed", "lines", "unknown key"],
)
def test_an_annotation_is_found(text):
    assert parse_answer(text) == ANNOTATION


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it holds no JSON object"),
        ("I'm sorry, I can't see the pictures.", "it holds no JSON object"),
        ("[1, 2]", "it holds no JSON object"),
        ("{}", "'caption' is a required property"),
        (json.dumps({"annotation": ANSWER}), "'caption' is a required property"),
        (json.dumps(ANSWER | {"caption": None}), r"\$\.caption: None is not of type 'string'"),
        (json.dumps(ANSWER | {"question_answering": []}), r"\$\.question_answering: "),
        (json.dumps(ANSWER | {"context_creation": "none"}), r"\$\.context_creation: 'none' is not of type 'array'"),
        (json.dumps(ANSWER | {"command_rewriting": [{"question": "Go."}]}), "'answer' is a required property"),
        (TEXT[: TEXT.index("context_creation") + 40], "'context_creation' is a required property"),
        ('{"a":' * 100_000, "it holds no JSON object"),
    ],
)
def test_what_is_no_annotation_says_why(text, reason):
    with pytest.raises(UnusableAnswerError, match=reason):
        parse_answer(text)


def test_an_answer_that_was_cut_off_loses_its_unfinished_entry_and_no_sentence_is_cut():
    entries = [{"question": f"Thing {n} is missing.", "answer": PROMISE} for n in range(3)]
    text = json.dumps(ANSWER | {"context_creation": entries})
    for end in range(text.index("Thing 1"), len(text)):
        contexts = parse_answer(text[:end]).contexts
        assert contexts and set(contexts) <= {Turn(**entry) for entry in entries}, text[:end]


def test_an_entry_too_many_is_no_reason_to_ask_again():
    """The checks reject it alone; an answer costs money."""
    entries = ANSWER["command_rewriting"] * 4
    assert len(parse_answer(json.dumps(ANSWER | {"command_rewriting": entries})).rewritten) == 4


def test_the_schema_is_one_that_structured_output_takes():
    """Every object closed and every key required, as strict mode wants it; our own answers keep it."""
    Draft202012Validator.check_schema(ANSWER_SCHEMA)
    Draft202012Validator(ANSWER_SCHEMA).validate(ANSWER)

    def objects(schema):
        if schema["type"] == "object":
            yield schema
            for part in schema["properties"].values():
                yield from objects(part)
        elif schema["type"] == "array":
            yield from objects(schema["items"])

    found = list(objects(ANSWER_SCHEMA))
    assert len(found) == 4
    assert all(part["required"] == list(part["properties"]) for part in found)
    assert not any(part["additionalProperties"] for part in found)
