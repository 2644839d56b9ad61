"""Whether two runs of the same trials differ by more than chance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

from instructvla.evaluation.group_rates import ALL
from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Outcome

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class PairedComparison:
    """Two runs' verdicts on the trials that both have.

    Args:
        first, second: their rates.
        only_first, only_second: trials in which one alone succeeded.
    """

    first: Rate
    second: Rate
    only_first: int
    only_second: int

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test, two-sided: how likely a difference at least as large is if neither is better."""
        return mcnemar_p(self.only_first, self.only_second)

    @property
    def verdict(self) -> str:
        if self.p_value >= SIGNIFICANT:
            return "noise"
        return "B is better" if self.only_second > self.only_first else "A is better"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "first": self.first.record(),
            "second": self.second.record(),
            "only_first": self.only_first,
            "only_second": self.only_second,
            "p_value": self.p_value,
            "verdict": self.verdict,
        }


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test from the discordant pairs (1 if there are none)."""
    discordant = only_first + only_second
    tail = sum(comb(discordant, k) for k in range(min(only_first, only_second) + 1)) / 2**discordant
    return min(1.0, 2 * tail)


def compare(
    first: Mapping[tuple[str, int], Outcome], second: Mapping[tuple[str, int], Outcome]
) -> dict[str, PairedComparison]:
    """Group → comparison of the trials that both have a verdict on, "all" last.

    Raises:
        ValueError: they have no trial in common, or a trial of another seed or instruction under the same name.
    """
    common = [key for key in first if key in second and _judged(first[key]) and _judged(second[key])]
    if not common:
        raise ValueError("the two runs have no trial in common that both have a verdict on.")
    pairs = [(first[key], second[key]) for key in common]
    for one, other in pairs:
        if (one.seed, one.instruction) != (other.seed, other.instruction):
            raise ValueError(
                f"trial {one.index} of {one.task} is not the same in both runs: seed {one.seed} and "
                f"{one.instruction!r}, seed {other.seed} and {other.instruction!r}."
            )
    groups = dict.fromkeys(group for one, _ in pairs for group in one.groups)
    by_group = {group: _compared(pair for pair in pairs if group in pair[0].groups) for group in groups}
    return by_group | {ALL: _compared(pairs)}


def _judged(outcome: Outcome) -> bool:
    return outcome.success is not None


def _compared(pairs: Iterable[tuple[Outcome, Outcome]]) -> PairedComparison:
    verdicts = [(bool(one.success), bool(other.success)) for one, other in pairs]
    trials = len(verdicts)
    return PairedComparison(
        Rate(sum(one for one, _ in verdicts), trials),
        Rate(sum(other for _, other in verdicts), trials),
        sum(one and not other for one, other in verdicts),
        sum(other and not one for one, other in verdicts),
    )
