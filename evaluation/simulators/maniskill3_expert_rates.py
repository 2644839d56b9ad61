"""`instructvla maniskill3-expert`: how often the scripted expert succeeds on the benchmark's own episodes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.recordings import Recording, recording_name
from instructvla.evaluation.simulators.maniskill3_benchmark import BENCHMARK, maniskill3_trials
from instructvla.evaluation.simulators.maniskill3_demonstrations import start_process
from instructvla.evaluation.simulators.maniskill3_expert import demonstrate
from instructvla.evaluation.simulators.maniskill3_tasks import EPISODES, PRIMARY, TASKS
from instructvla.evaluation.simulators.simulator import Simulator, Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError

app = typer.Typer(add_completion=False)


def recorded(simulator: Simulator, trial: Trial, folder: Path) -> Recording:
    """The expert's episode from the folder, or made and kept there.

    Raises:
        ValueError: the folder has another episode in its place.
    """
    path = folder / recording_name(trial)
    if not path.exists():
        unseen = replace(trial, options={**trial.options, "pictures": False})  # the expert looks at none
        replace(demonstrate(simulator, unseen)[0], trial=trial, cameras=(PRIMARY,)).save(folder)
    recording = Recording.load(path)
    if recording.trial != trial:
        raise ValueError(f"{path} is of another trial; give a new folder.")
    return recording


def expert_table(recordings: Sequence[Recording]) -> str:
    """A line per task: successes at the plan's end with 95 % intervals (Wilson), mean steps, episodes that failed."""
    lines = [f"{'task':9} {'success':>8}  {'rate and 95 % interval':24} {'steps':>6}  failed"]
    for task in dict.fromkeys(recording.trial.task for recording in recordings):
        of_task = [recording for recording in recordings if recording.trial.task == task]
        rate = Rate(sum(bool(one.successes[-1]) for one in of_task), len(of_task))
        steps = np.mean([len(one.actions) for one in of_task])
        failed = " ".join(str(one.trial.index) for one in of_task if not one.successes[-1])
        lines.append(f"{task:9} {rate.successes:5}/{rate.trials:<2}  {rate!s:24} {steps:6.1f}  {failed}".rstrip())
    return "\n".join(lines)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="For the recordings, which `replay:FOLDER` does again.")],
    task: Annotated[list[str] | None, typer.Option(help=f"Repeatable: {', '.join(TASKS)}; default: all.")] = None,
    episodes: Annotated[int, typer.Option(min=1, max=EPISODES, help="Of each task.")] = EPISODES,
) -> None:
    """Success of the expert per task on ManiSkill3's fixed episodes; run again, it goes on where it stopped."""
    with errors_on_stderr():
        trials = maniskill3_trials(task or (), episodes)
        try:
            with start_process() as simulator:
                recordings = [recorded(simulator, trial, folder) for trial in trials]
        except SimulatorBrokeError as error:
            raise ValueError(f"{error}; call again to go on.") from error
    typer.echo(f"{BENCHMARK.title}: the scripted expert")
    typer.echo(expert_table(recordings))


if __name__ == "__main__":
    app()
