from instructvla.evaluation.simulators.benchmark_definition import Benchmark, Installation
from instructvla.evaluation.simulators.simulator import Trial


def test_a_benchmark_without_installation_runs_in_this_environment():
    benchmark = Benchmark(
        "mine", "Mine", "mine.adapter", lambda names, trials: [Trial("t", 0, 0, "widowx", 5)], ("all",)
    )
    assert benchmark.installation is None
    assert Installation(("numpy==1.26.4",)).sources == ()
