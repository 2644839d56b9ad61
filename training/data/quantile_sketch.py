"""Quantiles of a stream of float32 numbers in bounded memory, the same whatever the order and the sharding."""

from typing import Self

import numpy as np

MAX_BINS = 1 << 17  # 1.5 MB a column


class QuantileSketch:
    """Counts of the distinct values of one column; when they become too many, of bins of neighbouring float32 values.

    A bin holds 2**level neighbouring float32 values, and the level is the smallest at which `max_bins` bins are enough.
    It depends only on the values seen, so merged sketches equal one of all values in any order. Error of a quantile:

    - none as long as there are at most `max_bins` distinct values;
    - beyond, at most `relative_error` = 2**(level − 24) of the value. 2**17 bins need no level above 15, so the error
      is at most 2**−9 (0.2 %) for whatever numbers, and about 2**−13 (0.01 %) for a normal distribution.

    The bound is on the value: it is the value, not the rank, that scales actions.

    Args:
        max_bins: bounds the memory, 12 bytes each.
    """

    def __init__(self, max_bins: int = MAX_BINS):
        if max_bins < 1 << 9:
            raise ValueError(
                f"max_bins is {max_bins}; give {1 << 9} or more, so that a bin stays within a power of two"
            )
        self.max_bins, self.level = max_bins, 0
        self.bins, self.counts = np.empty(0, np.uint32), np.empty(0, np.int64)

    @property
    def count(self) -> int:
        """How many values were seen."""
        return int(self.counts.sum())

    @property
    def relative_error(self) -> float:
        """Bound of |estimate − quantile| / |quantile|; 0 when the quantiles are exact."""
        return 0.0 if self.level == 0 else 2.0 ** (self.level - 24)

    def add(self, values: np.ndarray) -> None:
        """Count values (n,) float32; thousands at a time are fastest.

        Raises:
            ValueError: a value that is not finite.
        """
        if not np.isfinite(values).all():
            raise ValueError(f"quantiles need finite values, got {values[~np.isfinite(values)][0]}")
        bins, counts = np.unique(ordered_keys(values) >> np.uint32(self.level), return_counts=True)
        self._count(bins, counts)

    def merge(self, other: Self) -> None:
        """Count what another sketch has counted.

        Raises:
            ValueError: sketches of different `max_bins`, whose sum would depend on their order.
        """
        if other.max_bins != self.max_bins:
            raise ValueError(f"sketches of {self.max_bins} and {other.max_bins} bins can't be merged; use one size")
        bins, counts = other.bins, other.counts
        self._coarsen(max(self.level, other.level))
        self._count(*regrouped(bins >> np.uint32(self.level - other.level), counts))

    def quantiles(self, fractions: np.ndarray) -> np.ndarray:
        """Values at fractions in [0, 1], interpolated between neighbouring ranks as `numpy.quantile` does.

        Raises:
            ValueError: nothing was counted, or a fraction is outside [0, 1].
        """
        fractions = np.asarray(fractions, np.float64)
        if not len(self.bins) or not ((fractions >= 0) & (fractions <= 1)).all():
            raise ValueError(f"no quantiles {fractions.tolist()} of {self.count} values")
        ends = np.cumsum(self.counts)
        ranks = fractions * (ends[-1] - 1)
        below = np.floor(ranks)
        low, high = (self._centres()[np.searchsorted(ends, rank, side="right")] for rank in (below, np.ceil(ranks)))
        return low + (high - low) * (ranks - below)

    def _count(self, bins: np.ndarray, counts: np.ndarray) -> None:
        """Add counts of sorted bins of this level."""
        bins, counts = np.concatenate([self.bins, bins]), np.concatenate([self.counts, counts])
        order = np.argsort(bins, kind="stable")  # two sorted runs: linear time
        self.bins, self.counts = regrouped(bins[order], counts[order])
        while len(self.bins) > self.max_bins:
            self._coarsen(self.level + 1)

    def _coarsen(self, level: int) -> None:
        self.bins, self.counts = regrouped(self.bins >> np.uint32(level - self.level), self.counts)
        self.level = level

    def _centres(self) -> np.ndarray:
        half = np.uint32((1 << self.level) >> 1)
        return values_of((self.bins << np.uint32(self.level)) + half).astype(np.float64)


def regrouped(bins: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted bins once each, with their summed counts."""
    if not len(bins):
        return bins, counts
    starts = np.flatnonzero(np.append(True, bins[1:] != bins[:-1]))
    return bins[starts], np.add.reduceat(counts, starts)


def ordered_keys(values: np.ndarray) -> np.ndarray:
    """(n,) uint32 in the order of the float32 values; neighbouring values have neighbouring keys."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 turns −0 into 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def values_of(keys: np.ndarray) -> np.ndarray:
    """The float32 values of `ordered_keys`."""
    return np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys).view(np.float32)
