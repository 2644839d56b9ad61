"""What a model is asked about an episode: rules, examples, its instruction and three pictures (paper appendix C.2).

The words are in `annotation_prompt.yaml`. What is the same for all episodes comes first, as providers charge less for a
beginning that they know already.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

WORDS = files(__package__) / "annotation_prompt.yaml"
PICTURES = ("First", "Middle", "Last")


@cache
def prompt_words() -> Mapping[str, Any]:
    return yaml.safe_load(WORDS.read_text(encoding="utf-8"))


def prompt_version() -> str:
    """Names the words of the prompt, in journals and cards."""
    return prompt_words()["version"]


@cache
def system_text() -> str:
    """Rules and examples, the same for every episode."""
    words = prompt_words()
    told = "Examples follow; in place of pictures they have words."
    return "\n\n".join([words["rules"].strip(), told, *map(example_text, words["examples"])])


def example_text(example: Mapping[str, Any]) -> str:
    answer = json.dumps(example["answer"], ensure_ascii=False, indent=1)
    return f'Instruction: "{example["instruction"]}"\nPictures: {example["pictures"]}\nAnswer:\n{answer}'


def episode_messages(instruction: str, pictures: Sequence[str]) -> list[dict[str, Any]]:
    """Chat messages about an episode.

    Args:
        instruction: that the operator followed.
        pictures: data URLs of the first, the middle and the last.
    """
    content: list[dict[str, Any]] = [{"type": "text", "text": f'Instruction: "{instruction}"'}]
    for name, url in zip(PICTURES, pictures, strict=True):
        content += [{"type": "text", "text": f"{name} picture:"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "system", "content": system_text()}, {"role": "user", "content": content}]


def corrected(messages: list[dict[str, Any]], answer: str, problem: str) -> list[dict[str, Any]]:
    """The same question again, with the answer that could not be used and why; an empty answer is not repeated."""
    again = f"Your answer can't be used: {problem}. Answer again, with the whole JSON object and nothing else."
    said = [{"role": "assistant", "content": answer}] if answer.strip() else []
    return [*messages, *said, {"role": "user", "content": again}]
