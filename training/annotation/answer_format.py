"""The model's answer about an episode: its JSON schema, and the annotation in what came back."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from instructvla.training.data.episodes import Annotation, Turn

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

MOST_ENTRIES = 3  # of each kind
MOST_BRACES = 100  # an answer has ten; a text full of them would take minutes
TURNS = {"question_answering": "questions", "command_rewriting": "rewritten", "context_creation": "contexts"}
TEXT = {"type": "string"}
# What a schema asks for, but an answer may lack: an entry too many is rejected alone, and an unknown key is left out.
FORGIVEN = ("maxItems", "additionalProperties")


class UnusableAnswerError(ValueError):
    """An answer in which no annotation can be found; the message completes "it can't be used: …"."""


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """As structured output wants it: every key required, no other allowed."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


ENTRIES = {
    "type": "array",
    "items": closed_object({"question": TEXT, "answer": TEXT}),
    "minItems": 1,
    "maxItems": MOST_ENTRIES,
}
ANSWER_SCHEMA = closed_object({"caption": TEXT, **{kind: ENTRIES for kind in TURNS}})


def parse_answer(text: str) -> Annotation:
    """The annotation in an answer, also between other words; what is broken in its JSON is repaired if no text is lost.

    Raises:
        UnusableAnswerError: there is none, or none of the schema.
    """
    problems = ["it holds no JSON object"]
    for value in chain(reversed(list(json_objects(text))), repaired(text)):
        errors = [error for error in validator().iter_errors(value) if error.validator not in FORGIVEN]
        if not errors:
            return annotation_of(value)
        problems.append(
            "; ".join(f"{error.json_path}: {' '.join(error.message.split())[:120]}" for error in errors[:3])
        )
    raise UnusableAnswerError(problems[-1])


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The whole JSON objects in a text, outermost ones only, as far as it has no more braces than any answer."""
    decoder, place = json.JSONDecoder(), text.find("{")
    for _ in range(MOST_BRACES):
        if place < 0:
            return
        try:
            value, end = decoder.raw_decode(text, place)
            yield value
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)


def repaired(text: str) -> Iterator[dict[str, Any]]:
    """The object between the first brace and the last; so an answer that was cut off loses its unfinished entry."""
    from json_repair import loads

    first, last = text.find("{"), text.rfind("}")
    if 0 <= first < last and isinstance(value := loads(text[first : last + 1]), dict):
        yield value


def annotation_of(value: dict[str, Any]) -> Annotation:
    turns = {
        field: tuple(Turn(plain(e["question"]), plain(e["answer"])) for e in value[k]) for k, field in TURNS.items()
    }
    return Annotation(caption=plain(value["caption"]) or None, **turns)


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


@cache
def validator() -> "Draft202012Validator":
    from jsonschema import Draft202012Validator

    return Draft202012Validator(ANSWER_SCHEMA)
