"""The scripted expert in ManiSkill3's four WidowX tasks."""

from functools import partial

from instructvla.evaluation.recordings import Recording
from instructvla.evaluation.simulators import demonstration
from instructvla.evaluation.simulators.maniskill3_state import BridgeState
from instructvla.evaluation.simulators.simulator import Observation, Simulator, Trial
from instructvla.evaluation.simulators.widowx_expert import Expert, Handling, Poses

HANDLINGS = {
    "spoon": Handling(0.05),
    "carrot": Handling(0.05),
    "stack": Handling(0.04, long=False),
    "eggplant": Handling(0.12),
}


def poses(seen: Observation) -> Poses:
    return BridgeState.of_vector(seen.state)


def demonstrate(simulator: Simulator, trial: Trial) -> tuple[Recording, list[Observation]]:
    """One episode of the expert; see `demonstration.demonstrate`."""
    return demonstration.demonstrate(simulator, trial, partial(Expert, HANDLINGS[trial.task]), poses)
