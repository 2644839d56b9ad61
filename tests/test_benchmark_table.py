"""Claims about a run's rates in its benchmark's layout."""

from dataclasses import replace

from instructvla.evaluation.benchmark_table import benchmark_table
from instructvla.evaluation.ledger import Outcome
from tests.stand_in_benchmark import BENCHMARK

OUTCOMES = [Outcome("near", index, 0, "…", index < 3, 1, groups=("near",)) for index in range(4)]


def test_groups_are_rows_with_published_rates_beside():
    lines = benchmark_table(replace(BENCHMARK, published={"paper": {"near": 45.8}}), OUTCOMES).splitlines()
    assert lines[0] == "|  | successes | rate, 95 % interval (Wilson) | paper |"
    assert lines[2] == "| near | 3/4 | 75.0 % [30.1–95.4] | 45.8 |" and lines[3].startswith("| all | 3/4 |")
    assert lines[3].endswith("| – |")


def test_a_benchmark_s_own_summary_comes_instead():
    own = replace(BENCHMARK, summary=lambda outcomes: f"{len(outcomes)} of mine")
    assert benchmark_table(own, OUTCOMES) == "4 of mine"
