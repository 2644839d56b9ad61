"""Where the tests find LIBERO."""

from pathlib import Path

import pytest

from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.libero_benchmark import BENCHMARK
from instructvla.evaluation.simulators.simulator_process import SimulatorProcess


def libero_python() -> Path:
    """Its interpreter; the test is skipped where there is none."""
    try:
        return simulator_python(BENCHMARK)
    except ValueError as error:
        pytest.skip(str(error))


def libero_process() -> SimulatorProcess:
    """LIBERO behind the runner's wire, with time for a busy machine that renders on its CPU."""
    environment = BENCHMARK.installation.environment
    return SimulatorProcess(BENCHMARK.adapter, libero_python(), environment, start_s=1200.0, step_s=300.0)
