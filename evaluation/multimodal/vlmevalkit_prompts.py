"""VLMEvalKit's messages as the model's prompts, and Table 1's questions as the paper's evaluation asks them."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from instructvla.evaluation.multimodal.benchmarks import DIRECT, LETTER, SHORT, Benchmark, tiling_for
from instructvla.evaluation.multimodal.chat_model import Prompt

SHORT_ANSWER, LONG_ANSWER = 128, 512  # tokens


def question_text(line: Mapping[str, Any], benchmark: Benchmark) -> str:
    """A benchmark's question with its options and the instruction of the paper's evaluation.

    Args:
        line: a row of VLMEvalKit's table: question, and for multiple choice hint and A, B, …, each of them NaN if none.
        benchmark: that the row is of.
    """
    if benchmark.instruction != LETTER:
        return line["question"] + benchmark.instruction
    options = [f"{letter}. {line[letter]}" for letter in string.ascii_uppercase if _is_given(line, letter)]
    hint = [line["hint"]] if _is_given(line, "hint") else []
    return "\n".join([*hint, line["question"], *options]) + (LETTER if options else DIRECT)


def prompt_of(message: Sequence[Mapping[str, str]], dataset: str | None, max_tiles: int | None = None) -> Prompt:
    """The prompt of a message; its pictures come before its text, as in the released prompts.

    Args:
        message: `{"type": "text" or "image", "value": text or path}`.
        dataset: that it is of.
        max_tiles: of a picture; default: as the paper's evaluation.

    Raises:
        ValueError: a message with video, audio or another type of content.
    """
    for part in message:
        if part["type"] not in ("text", "image"):
            raise ValueError(
                f"{dataset} asks about {part['type']} ({part['value']}), but InstructVLA reads text and images; "
                "leave this data set out of --data."
            )
    images = tuple(part["value"] for part in message if part["type"] == "image")
    joint = "\n" if len(images) == 1 else ""
    text = joint.join(part["value"] for part in message if part["type"] == "text")
    is_short = SHORT in text or LETTER.strip() in text
    return Prompt(
        text,
        images,
        max_new_tokens=SHORT_ANSWER if is_short else LONG_ANSWER,
        tiling=tiling_for(dataset, max_tiles),
    )


def _is_given(line: Mapping[str, Any], name: str) -> bool:
    return name in line and line[name] == line[name]  # NaN differs from itself
