"""Claims about the loop in a simulator's process."""

import subprocess
import sys

import numpy as np

from instructvla.evaluation.simulators.host import answer
from instructvla.evaluation.simulators.simulator import Trial
from tests.stand_in_simulator import PointSimulator

TRIAL = Trial("reach", 0, 5, "tabletop", 10, options={"fault": "fail"})


def test_observations_refusals_and_failures_are_told_apart(capsys):
    simulator = PointSimulator()
    assert answer(simulator, {"reset": TRIAL.record()})["observation"]["instruction"] == "reach it"
    assert "no task 'unknown'" in answer(simulator, {"reset": TRIAL.record() | {"task": "unknown"}})["refused"]
    answer(simulator, {"step": np.zeros(7)})
    assert answer(simulator, {"step": np.zeros(7)}) == {"broken": "RuntimeError: the solver diverged"}
    assert "Traceback" in capsys.readouterr().err


def test_a_simulator_s_process_loads_neither_torch_nor_transformers():
    code = (
        "import sys, instructvla.evaluation.simulators.host, instructvla.evaluation.simulators.tabletop_simulator\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
