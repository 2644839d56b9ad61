"""How many tokens messages take, before they are sent: an estimate, as every model counts in its own way."""

import base64
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image

CHARACTERS_PER_TOKEN = 4  # of English text, a rule of thumb of tokenizers with some 100,000 entries
TOKENS_PER_MESSAGE = 4
# Pictures as many models count them: so many tokens for a picture and for each tile of 512 × 512 pixels.
PICTURE_TOKENS, TILE_TOKENS, TILE = 85, 170, 512


def estimated_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    """Of chat messages, whose content is a text or a list of texts and pictures (data URLs)."""
    return sum(TOKENS_PER_MESSAGE + content_tokens(message["content"]) for message in messages)


def content_tokens(content: str | list[Mapping[str, Any]]) -> int:
    if isinstance(content, str):
        return text_tokens(content)
    return sum(text_tokens(part["text"]) if part["type"] == "text" else picture_tokens(part) for part in content)


def text_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def picture_tokens(part: Mapping[str, Any]) -> int:
    """Of a picture that lies in the message itself; one that is only linked counts as one tile."""
    header, comma, content = part["image_url"]["url"].partition(",")
    if not (header.startswith("data:") and comma):
        return PICTURE_TOKENS + TILE_TOKENS
    width, height = Image.open(io.BytesIO(base64.b64decode(content))).size
    return PICTURE_TOKENS + TILE_TOKENS * math.ceil(width / TILE) * math.ceil(height / TILE)
