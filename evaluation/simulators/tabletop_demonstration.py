"""The tabletop's scripted expert behind the runner's wire, to prove a set-up without a trained policy.

The policy "replay:FOLDER" does what it recorded again:

python -m instructvla.evaluation.simulators.tabletop_demonstration atomic/close-the-drawer FOLDER
"""

from instructvla.evaluation.recordings import Recorder, Recording
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.demonstration import run_command
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.tabletop_benchmark import tabletop_trials
from instructvla.evaluation.simulators.tabletop_simulator import TabletopSimulator, make_simulator
from instructvla.evaluation.tabletop.expert import Expert


def demonstrate(simulator: TabletopSimulator, trial: Trial) -> Recording:
    """One episode of the expert."""
    seen = simulator.reset(trial)
    world, command = simulator.world, find_robot(trial.robot).make_command()
    expert, recorder = Expert(world.scene, world.task), Recorder(trial, seen, trial.instruction or seen.instruction)
    while not seen.done:
        action = expert.act(world.state())
        seen = simulator.step(command(action))
        recorder.add(action, command(action), seen)
    return recorder.recording()


def main() -> None:
    simulator = make_simulator()
    run_command(__doc__, tabletop_trials, lambda trial: demonstrate(simulator, trial))


if __name__ == "__main__":
    main()
