"""The released ChatML prompts: tokens, Jinja template and the questions that ask for an action (paper appendix E.1)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .action_normalization import nearest

IMAGE_TOKEN = "<IMG_CONTEXT>"
TURN_START = "<|im_start|>"
PROMPT_TOKENS = (TURN_START, "<|im_end|>", "<img>", "</img>", IMAGE_TOKEN)
QUERY_PATTERN = re.compile(r"<new_token_\d+>")
RESPONSE_REQUESTS = {
    None: "",
    "motion": " Give both move primitive and action.",
    "answer": " First answer my question.",
}
ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = r"""
{%- set image = '<img>' + '<IMG_CONTEXT>' * NUM_IMAGE_TOKENS + '</img>\n' -%}
{%- set images = namespace(total=0, seen=0) -%}
{%- for message in messages if message.content is not string -%}
  {%- for part in message.content if part.type != 'text' -%}
    {%- set images.total = images.total + 1 -%}
  {%- endfor -%}
{%- endfor -%}
{%- if messages[0].role != 'system' -%}
  {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\n' -}}
  {%- if message.content is string -%}
    {%- set text = message.content -%}
  {%- else -%}
    {%- for part in message.content if part.type != 'text' -%}
      {%- set images.seen = images.seen + 1 -%}
      {{- '<image ' ~ images.seen ~ '>' if images.total > 1 -}}
      {{- image -}}
    {%- endfor -%}
    {%- set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join -%}
  {%- endif -%}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}
      {{- text + '<|im_end|>' -}}
    {%- endgeneration -%}
  {%- else -%}
    {{- text + '<|im_end|>' -}}
  {%- endif -%}
  {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


def query_token(index: int) -> str:
    """The vocabulary entry of one action query."""
    return f"<new_token_{index}>"


def released_chat_template(num_image_tokens: int) -> str:
    """Jinja template of the released prompts, with `num_image_tokens` image tokens baked in for each image.

    The images of a message come before its text; in a conversation with several, each is announced by its number.
    The assistant's words up to and including `<|im_end|>` are marked as generated, so they alone carry loss.
    """
    return CHAT_TEMPLATE.replace("NUM_IMAGE_TOKENS", str(num_image_tokens)).strip()


def control_tokens(text: str, special_tokens: Iterable[str] = ()) -> list[str]:
    """What in a text the model would take for the frame of the conversation, an image or an action query."""
    found = [token for token in {*PROMPT_TOKENS, *special_tokens} if token in text]
    return sorted({*found, *QUERY_PATTERN.findall(text)})


def action_messages(instruction: str, response: str | None, special_tokens: Iterable[str]) -> list[dict[str, Any]]:
    """The conversation that asks for an action.

    Args:
        instruction: what the robot shall do, in words.
        response: None, "motion" or "answer": what the model is asked to say first.
        special_tokens: the tokenizer's, which an instruction must not hold.

    Raises:
        ValueError: an empty instruction, one that holds control tokens, or an unknown response.
    """
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError(f"the instruction must be a non-empty string, got {instruction!r}")
    if any("\ud800" <= character <= "\udfff" for character in instruction):
        raise ValueError(f"the instruction {instruction!r} holds half a character (a lone surrogate); decode it anew")
    if control := control_tokens(instruction, special_tokens):
        raise ValueError(f"the instruction {instruction!r} holds control tokens: {control}; remove them")
    if not isinstance(response, str | None) or response not in RESPONSE_REQUESTS:
        choices = [str(choice) for choice in RESPONSE_REQUESTS]
        raise ValueError(
            f"unknown response {response!r}; choose from {choices}, the nearest is {nearest(response, choices)!r}"
        )
    question = f"What action should the robot take to {instruction}?{RESPONSE_REQUESTS[response]}"
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]


def check_messages(messages: Any) -> None:
    """Refuse a conversation that the template would render into something else than was meant (ValueError)."""
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"a conversation must be a non-empty list of messages, got {messages!r}")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise ValueError(f"message {index} must be a dict with a role of {list(ROLES)}, got {message!r}")
        content = message.get("content")
        if not isinstance(content, str | list | tuple):
            raise ValueError(f"message {index} must have a string or a list as content, got {content!r}")
        for part in content if not isinstance(content, str) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            is_text = kind == "text" and isinstance(part.get("text"), str)
            if not is_text and (kind not in ("image", "image_url") or message["role"] != "user"):
                raise ValueError(
                    f"message {index} ({message['role']}) holds {part!r}; give {{'type': 'text', 'text': ...}} or, for "
                    "the user, {'type': 'image', 'image': ...}"
                )


def as_texts(text: str | Sequence[str]) -> list[str]:
    """A text or a list of them as a non-empty list (else ValueError)."""
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(entry, str) for entry in texts):
        raise ValueError(f"text must be a string or a non-empty list of strings, got {text!r}")
    return list(texts)


def is_chat(texts: Sequence[str]) -> bool:
    """Whether the texts are formatted chat prompts; a mixture with plain instructions is a ValueError."""
    formatted = [TURN_START in text for text in texts]
    if any(formatted) and not all(formatted):
        raise ValueError(f"text mixes formatted prompts (with {TURN_START}) and plain instructions; make two calls")
    return formatted[0]
