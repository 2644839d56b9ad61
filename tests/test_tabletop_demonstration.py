"""Claims about the tabletop's expert behind the runner's wire."""

from instructvla.evaluation.simulators.tabletop_benchmark import tabletop_trial
from instructvla.evaluation.simulators.tabletop_demonstration import demonstrate
from instructvla.evaluation.simulators.tabletop_simulator import make_simulator
from tests.tabletop_policies import CLOSE


def test_the_recording_ends_with_the_expert_s_success():
    simulator, trial = make_simulator(), tabletop_trial(CLOSE, 0)
    recording = demonstrate(simulator, trial)
    simulator.close()
    assert recording.successes[-1] and not recording.successes[:-1].any()
    assert recording.instructions == ((0, trial.instruction),) and len(recording.actions) < trial.max_steps
