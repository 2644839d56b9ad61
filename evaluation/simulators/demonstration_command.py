"""What the scripted experts' commands have in common: `python -m MODULE TASK FOLDER --tries N`, by their simulator."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from instructvla.evaluation.recordings import Recording
from instructvla.evaluation.simulators.simulator import Trial


def run(
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
