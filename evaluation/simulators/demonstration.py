"""What scripted experts have in common: their episodes, and their commands `python -m MODULE TASK FOLDER --tries N`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from instructvla.evaluation.recordings import Recorder, Recording
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.simulator import Observation, Simulator, Trial

State = TypeVar("State")


class Expert(Protocol[State]):
    """Carries out a plan.

    Attributes:
        done: whether the plan is carried out: the last action was to stay.
    """

    @property
    def done(self) -> bool: ...

    def act(self, state: State) -> np.ndarray:
        """(7,) as a policy gives it: translation (m), Euler angles (rad), opening of the gripper (1 = open)."""
        ...


def demonstrate(
    simulator: Simulator,
    trial: Trial,
    make_expert: Callable[[State], Expert[State]],
    state: Callable[[Observation], State],
) -> tuple[Recording, list[Observation]]:
    """One episode of an expert, to the end of its plan or of the trial; its actions take a policy's way to the robot.

    The last action stays where it is, so that a replay may repeat it.

    Args:
        make_expert: state at the start → expert for this episode.
        state: says where things are when something has been observed.

    Returns:
        What was done, and what was seen before each step and after the last.

    Raises:
        ValueError: the simulator doesn't have this task or option.
        SimulatorBrokeError: it died, failed, or gave no answer in time.
    """
    seen = [simulator.reset(trial)]
    recorder, command = Recorder(trial, seen[0], seen[0].instruction), find_robot(trial.robot).make_command()
    expert = make_expert(state(seen[0]))
    while len(seen) <= trial.max_steps and not expert.done:
        action = expert.act(state(seen[-1]))
        seen.append(simulator.step(command(action)))
        recorder.add(action, command(action), seen[-1])
    return recorder.recording(), seen


def run_command(
    about: str,
    trials: Callable[[Sequence[str], int], list[Trial]],
    demonstrate: Callable[[Trial], Recording],
    arguments: Sequence[str] | None = None,
) -> None:
    """Records the first of a task's trials in which the expert succeeds.

    Args:
        about: of the command, for its help.
        trials: (names of tasks, number of trials) → the first ones.
        demonstrate: one episode of the expert.
        arguments: of the command; None: those of this process.

    Raises:
        SystemExit: it succeeds in none, or the task is unknown.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("folder", type=Path, help="for the recording")
    parser.add_argument("--tries", type=int, default=1, help="how many trials are tried, from the first one on")
    options = parser.parse_args(arguments)
    try:
        for trial in trials([options.task], options.tries):
            recording = demonstrate(trial)
            if recording.successes[-1]:
                recording.save(options.folder)
                return
            sys.stderr.write(f"{trial.task}, trial {trial.index}: failed after {len(recording.actions)} steps\n")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    raise SystemExit(f"error: the scripted expert failed in {options.tries} trials of {options.task}; nothing is kept.")
