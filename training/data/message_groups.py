"""Many messages of one kind as a line with how many there are and a few of their numbers."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
SHOWN = 3  # numbers of many; as many messages of one kind still have a line each


def few(numbers: Sequence[int]) -> str:
    """The first of them, and how many more there are: "0, 4, 7 and 37 more"."""
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return shown if len(numbers) <= SHOWN else f"{shown} and {len(numbers) - SHOWN:,} more"


def without_numbers(text: str) -> str:
    """What messages of one kind share, where only numbers tell them apart."""
    return re.sub(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "#", text)


def grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Those of one key together, in the order of the first of each."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
