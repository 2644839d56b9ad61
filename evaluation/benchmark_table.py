"""A run's rates as its benchmark lays them out, with published ones beside them."""

from collections.abc import Sequence

from instructvla.evaluation.group_rates import group_rates
from instructvla.evaluation.ledger import Outcome, system_two_of
from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.system_two import with_system_two
from instructvla.model_card import markdown_table


def benchmark_table(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> str:
    """Markdown: the benchmark's own summary if it has one, else a row per group.

    Args:
        benchmark: that was run.
        outcomes: of the run.
    """
    if benchmark.summary is not None:
        return benchmark.summary(outcomes)
    rates = group_rates(outcomes, benchmark.groups)
    rows = [
        [group, f"{rate.successes}/{rate.trials}", str(rate), *(row.get(group) for row in benchmark.published.values())]
        for group, rate in rates.items()
    ]
    ours = with_system_two("rate", system_two_of(outcomes))
    return markdown_table(["", "successes", f"{ours}, 95 % interval (Wilson)", *benchmark.published], rows)
