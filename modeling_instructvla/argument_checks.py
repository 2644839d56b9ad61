"""Checks of arguments that several modules share."""

from numbers import Integral
from typing import Any


def require_positive_integer(name: str, value: Any) -> None:
    """Refuse what is no integer of at least 1 (ValueError)."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, but it must be an integer of at least 1.")
