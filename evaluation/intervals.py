"""Success rates and their confidence intervals."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any


def wilson_interval(successes: float, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927; without continuity correction).

    Args:
        successes: how many trials succeeded; of scores from 0 to 1 their sum, which gives an interval that is rather
            too wide.
        trials: how many there were.
        confidence: share of such intervals that hold the true rate.

    Returns:
        Lower and upper bound, 0 to 1; (0, 1) for no trial.

    Raises:
        ValueError: if the counts can't be, or the confidence is not between 0 and 1.
    """
    if trials < 0 or not 0 <= successes <= trials:
        raise ValueError(f"successes must be 0 to trials, got {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95, got {confidence}.")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, spread = successes / trials, z * z / trials
    middle = (rate + spread / 2) / (1 + spread)
    half = z * sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Rate:
    """Successes of some trials."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        return self.successes / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of 95 %."""
        return wilson_interval(self.successes, self.trials)

    def __str__(self) -> str:
        if not self.trials:
            return "–"
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}–{100 * high:.1f}]"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        low, high = self.interval
        rate = self.value if self.trials else None
        return {"successes": self.successes, "trials": self.trials, "rate": rate, "low": low, "high": high}
