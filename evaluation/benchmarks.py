"""The benchmarks that `instructvla evaluate` knows, by name."""

from collections.abc import Mapping
from importlib import import_module

from instructvla.evaluation.simulators.benchmark_definition import Benchmark

MODULES: Mapping[str, str] = {
    "tabletop": "tabletop_benchmark",
    "maniskill3": "maniskill3_benchmark",
    "simpler_env": "simpler_env_benchmark",
    "simpler_instruct": "simpler_instruct_benchmark",
    "libero": "libero_benchmark",
}
"""Name → module of `instructvla.evaluation.simulators`, which has `BENCHMARK`."""


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name, or by PACKAGE.MODULE of one's own that has `BENCHMARK`.

    Raises:
        ValueError: there is none; the known ones are listed.
    """
    module = f"instructvla.evaluation.simulators.{MODULES[name]}" if name in MODULES else name
    if "." not in module:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(MODULES)}, or give PACKAGE.MODULE.")
    try:
        return import_module(module).BENCHMARK
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or module):
            raise
        raise ValueError(f"there is no module {error.name} for the benchmark {name!r}.") from error
