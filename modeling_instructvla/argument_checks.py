"""Checks of arguments that several modules share."""

from numbers import Integral
from typing import Any


def require_positive_integer(name: str, value: Any) -> None:
    """Refuse what is no integer of at least 1 (ValueError)."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, but it must be an integer of at least 1.")


def parse_counts(option: str, text: str, most: int) -> list[int]:
    """`"1,2,4"`, the value of a command's option, as numbers from 1 to `most` (ValueError)."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= most for number in numbers):
        raise ValueError(f"{option} {text} must be numbers from 1 to {most}, as in 1,2,4,8")
    return numbers
