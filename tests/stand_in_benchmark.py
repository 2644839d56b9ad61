"""A benchmark of two tasks for the stand-in simulator: one that chance solves at once, and one that it never does."""

from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.simulator import Trial

TARGETS = {"near": [0.0, 0.0, 0.0], "far": [9.0, 9.0, 9.0]}


def trials(names=(), per_task=None):
    if unknown := [name for name in names if name not in TARGETS]:
        raise ValueError(f"there is no task {unknown[0]!r}; there are {', '.join(TARGETS)}.")
    return [
        Trial(
            name, index, index, "tabletop", 3, (name,), options={"target": TARGETS[name], "at_target": name == "near"}
        )
        for index in range(per_task or 3)
        for name in names or TARGETS
    ]


BENCHMARK = Benchmark("points", "Points", "tests.stand_in_simulator", trials, ("near", "far"))
