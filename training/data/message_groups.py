"""Many messages of one kind as a line with how many there are and a few of their numbers."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
SHOWN = 3  # numbers of many; as many messages of one kind still have a line each
STRETCHES = 6  # of numbers in a row


def few(numbers: Sequence[int]) -> str:
    """The first of them, and how many more there are: "0, 4, 7 and 37 more"."""
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return shown if len(numbers) <= SHOWN else f"{shown} and {len(numbers) - SHOWN:,} more"


def ranges(numbers: Sequence[int]) -> str:
    """All of them, or the first stretches and how many more there are: "1–24, 26, 30–99 and 37 more"."""
    ordered = sorted(set(numbers))
    stretches: list[list[int]] = []
    for number in ordered:
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    shown = ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in stretches[:STRETCHES])
    others = sum(map(len, stretches[STRETCHES:]))
    return f"{shown} and {others:,} more" if others else shown


def without_numbers(text: str) -> str:
    """What messages of one kind share, where only numbers tell them apart."""
    return re.sub(r"[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "#", text)


def grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Those of one key together, in the order of the first of each."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
