"""Turning images, instructions and states into model inputs, and model outputs into robot actions.

The names below are imported when they are first used: normalisation needs neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instructvla.processing.processing_instructvla import InstructVLAProcessor, released_chat_template

__all__ = ["InstructVLAProcessor", "released_chat_template"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.processing_instructvla"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
