"""Claims about a simulator in a process of its own."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError, SimulatorProcess
from tests.stand_in_simulator import PointSimulator

ADAPTER = "tests.stand_in_simulator"
HERE = {"PYTHONPATH": str(Path(__file__).parents[1])}
COMMAND = np.array([0.01, 0, 0, 0, 0, 0, 1.0])


def trial(**options) -> Trial:
    return Trial("reach", 0, 5, "tabletop", 10, options=options)


def process(**settings) -> SimulatorProcess:
    return SimulatorProcess(ADAPTER, environment=HERE, **settings)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_gives_what_the_simulator_gives_bit_by_bit():
    bare = PointSimulator()
    with process() as simulator:
        assert simulator.versions == {"point": "1.0"} and simulator.notes == ("a point stands in for the robot",)
        seen, expected = simulator.reset(trial()), bare.reset(trial())
        for _ in range(4):
            np.testing.assert_array_equal(seen.images["primary"], expected.images["primary"])
            np.testing.assert_array_equal(seen.state, expected.state)
            assert (seen.instruction, seen.reward, seen.success) == (expected.instruction, 0.0, False)
            seen, expected = simulator.step(COMMAND), bare.step(COMMAND)


def test_what_the_simulator_prints_goes_to_the_log(tmp_path):
    log = tmp_path / "log.txt"
    with process(log=log) as simulator:
        simulator.reset(trial(fault="chatter"))
        for _ in range(3):
            assert simulator.step(COMMAND).reward == 0.0
    assert "chatter on standard output" in log.read_text(errors="replace")


def test_bad_input_is_refused_in_the_simulator_s_words_and_it_lives_on():
    with process() as simulator:
        with pytest.raises(ValueError, match="no task 'unknown'; there is reach"):
            simulator.reset(Trial("unknown", 0, 0, "tabletop", 10))
        assert simulator.reset(trial()).instruction == "reach it"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hang", "no answer to its step within 1 s"),
        ("die", r"died at its step \(exit 3\)"),
        ("fail", "failed at its step: RuntimeError: the solver diverged"),
    ],
)
def test_a_simulator_that_hangs_dies_or_fails_is_ended_and_says_how(fault, message):
    simulator = process(step_s=1)
    simulator.reset(trial(fault=fault))
    simulator.step(COMMAND)
    began = time.monotonic()
    with pytest.raises(SimulatorBrokeError, match=message):
        simulator.step(COMMAND)
    assert time.monotonic() - began < 20 and not is_running(simulator._process.pid)
    with pytest.raises(SimulatorBrokeError, match="died before its reset"):
        simulator.reset(trial())


def test_its_last_words_are_quoted(tmp_path):
    with pytest.raises(SimulatorBrokeError, match="died at its start .*No module named"):
        SimulatorProcess(ADAPTER, environment={"PYTHONPATH": "", "PYTHONHOME": "/nowhere"}, log=tmp_path / "log.txt")


def test_an_adapter_or_an_interpreter_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="environment lacks tests.no_such_adapter"):
        SimulatorProcess("tests.no_such_adapter", environment=HERE)
    with pytest.raises(ValueError, match="interpreter no-such-python can't be started"):
        SimulatorProcess(ADAPTER, python="no-such-python")


def test_closing_ends_it():
    simulator = process()
    simulator.close()
    assert not is_running(simulator._process.pid)
