"""How far two classifications of the same texts agree: percent, Cohen's kappa, and precision and recall by category."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from instructvla.evaluation.intervals import Rate
from instructvla.training.annotation.categories import Category


@dataclass(frozen=True)
class Agreement:
    """Of labels that two sides gave.

    Args:
        pairs: (first side's label, second side's label) → number of texts.
    """

    pairs: Counter[tuple[Hashable, Hashable]]

    @classmethod
    def of(cls, labels: Iterable[tuple[Hashable, Hashable]]) -> "Agreement":
        return cls(Counter(labels))

    @property
    def rate(self) -> Rate:
        """Texts that both sides put into the same category."""
        return Rate(sum(self._same(category) for category in self.categories), self.pairs.total())

    @property
    def kappa(self) -> float | None:
        """Cohen's (1960): agreement beyond what the sides' shares give by chance, 1 is full; None if chance is all."""
        total = self.pairs.total()
        by_chance = sum(self._given(0, one) * self._given(1, one) for one in self.categories) / total**2 if total else 1
        return None if by_chance == 1 else (self.rate.value - by_chance) / (1 - by_chance)

    @property
    def kappa_text(self) -> str:
        return "not defined, as chance is all" if self.kappa is None else f"{self.kappa:.2f}"

    @property
    def categories(self) -> list[Hashable]:
        """The labels that a side used: categories in the paper's order, others sorted."""
        used = {label for pair in self.pairs for label in pair}
        return [category for category in Category if category in used] or sorted(used)

    def precision(self, category: Hashable) -> Rate:
        """Of what the first side put into a category, as the second side did."""
        return Rate(self._same(category), self._given(0, category))

    def recall(self, category: Hashable) -> Rate:
        """Of what the second side put into a category, as the first side did."""
        return Rate(self._same(category), self._given(1, category))

    def _same(self, category: Hashable) -> int:
        return self.pairs[category, category]

    def _given(self, side: int, category: Hashable) -> int:
        return sum(count for pair, count in self.pairs.items() if pair[side] == category)


def agreement_lines(found: Agreement, first: str, second: str) -> Iterator[str]:
    """Agreement in words, and a row per category.

    Args:
        found: to tell.
        first, second: names of the sides; precision and recall are the first side's against the second's.
    """
    rate = found.rate
    yield f"{first} against {second}: {rate.successes} of {rate.trials} agree, {rate}; Cohen's kappa {found.kappa_text}"
    width = max(map(len, found.categories), default=0)
    yield f"  {'':<{width}}  {'precision':<26}{'recall':<26}texts"
    for category in found.categories:
        recall = found.recall(category)
        yield f"  {category:<{width}}  {found.precision(category)!s:<26}{recall!s:<26}{recall.trials}"
