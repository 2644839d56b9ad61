"""Texts as recordings hold them: ids, paths and instructions, as bytes, as strings, or alone in a list or an array."""

from typing import Any

import numpy as np

from instructvla.training.data.encoded_pictures import is_picture
from instructvla.training.data.episodes import BadEpisodeError, RawEpisode

SHOWN = 60  # characters of a value in a message


class NoTextError(ValueError):
    """A recorded value that is no text; the message says what it is."""


def metadata_text(value: Any) -> str | None:
    """A recorded text or number, such as an id; None for an empty one. Anything else is a `NoTextError`."""
    found = unwrapped(value)
    return str(found) if isinstance(found, (int, float)) else instruction_text(found)


def instruction_text(value: Any) -> str | None:
    """A recorded text; None for an empty one.

    Raises:
        NoTextError: a number, several texts, a picture or anything else, as which it would be no instruction.
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    found = unwrapped(value)
    if isinstance(found, bytes) and is_picture(found):
        raise NoTextError(f"a picture ({len(found)} bytes)")
    if not isinstance(found, (str, bytes, type(None))):
        raise NoTextError(told(value))
    text = found.decode("utf-8") if isinstance(found, bytes) else found or ""
    return text.strip() or None


def instruction_texts(raw: RawEpisode, name: str, steps: int) -> list[str | None]:
    """The instruction of each step, from a field of the steps or of the whole episode.

    Raises:
        NoTextError: the field does not hold texts.
        BadEpisodeError: a text that can't be decoded.
    """
    try:
        if name in raw.steps:
            return [instruction_text(value) for value in raw.steps[name]]
        return [instruction_text(raw.metadata[name])] * steps
    except UnicodeDecodeError as error:
        raise BadEpisodeError(f"{raw.source}: {name} is no UTF-8 text ({error}); record it again") from error


def text_fields(raw: RawEpisode) -> list[str]:
    """Names of the fields that hold texts, of the steps or of the whole episode."""
    firsts = {name: values[0] for name, values in raw.steps.items() if len(values)} | dict(raw.metadata)
    return sorted(name for name, value in firsts.items() if holds_text(value))


def holds_text(value: Any) -> bool:
    try:
        return instruction_text(value) is not None
    except (NoTextError, UnicodeDecodeError):
        return False


def unwrapped(value: Any) -> Any:
    """The only element of a list or an array, as Python has it; else the value itself."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return unwrapped(value[0])
    return value.item() if isinstance(value, (np.ndarray, np.generic)) and value.size == 1 else value


def told(value: Any) -> str:
    """A value for a message, with its kind."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array {value.shape} of {value.dtype}"
    content = repr(value.item() if isinstance(value, (np.ndarray, np.generic)) else value)
    content = content if len(content) <= SHOWN else f"{content[: SHOWN - 1]}…"
    return f"a list of {len(value)}, {content}" if isinstance(value, (list, tuple)) else f"the value {content}"
