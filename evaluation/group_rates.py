"""Success rates of a ledger's outcomes, by what they count towards."""

from collections.abc import Iterable, Sequence

from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Outcome

ALL = "all"


def group_rates(outcomes: Iterable[Outcome], groups: Sequence[str] = ()) -> dict[str, Rate]:
    """Group → rate, "all" last; trials without a verdict don't count.

    Args:
        groups: which come first, in this order; others follow in the order in which they appear.
    """
    found: dict[str, list[bool]] = {group: [] for group in groups}
    everything = []
    for outcome in outcomes:
        if outcome.success is None:
            continue
        everything.append(outcome.success)
        for group in outcome.groups:
            found.setdefault(group, []).append(outcome.success)
    rates = {group: Rate(sum(some), len(some)) for group, some in found.items() if some}
    return rates | {ALL: Rate(sum(everything), len(everything))}
