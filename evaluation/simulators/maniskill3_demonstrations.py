"""`instructvla maniskill3-demonstrations`: the expert's episodes as a dataset that training streams."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.recordings import Recording
from instructvla.evaluation.robot_conventions import widowx_state
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.maniskill3_benchmark import BENCHMARK
from instructvla.evaluation.simulators.maniskill3_expert import demonstrate
from instructvla.evaluation.simulators.maniskill3_tasks import TASKS, find_task, random_placement
from instructvla.evaluation.simulators.simulator import Observation, Simulator, Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError, SimulatorProcess
from instructvla.training.data.encoded_pictures import encoded
from instructvla.training.data.episodes import BadEpisodeError, Episode
from instructvla.training.data.field_mapping import read_mapping
from instructvla.training.data.prepare import motion_transform, parse_size, prepare, summary

DATASET = "maniskill3_bridge"
CONTROL_RATE_HZ = 5.0
ATTEMPTS = 5  # placements per episode, as the expert fails at a few
FORMAT = 1  # of what the episodes hold: another one is another dataset

DESCRIPTION = replace(  # Bridge's actions and states, but nothing is left out of a recording
    read_mapping("bridge").with_dataset(DATASET).description, first_step=0, dropped_steps=0
)


def start_process() -> SimulatorProcess:
    """
    Raises:
        ValueError: the simulator or its assets are missing.
        SimulatorBrokeError: it died or was not ready in time.
    """
    return SimulatorProcess(BENCHMARK.adapter, simulator_python(BENCHMARK), BENCHMARK.installation.environment)


class ManiSkill3Episodes:
    """Successful episodes of the expert, a map-style reader; the same number gives the same one in every process.

    Tasks take turns. Objects lie anywhere within the benchmark's grids, so that its 24 episodes stay an exam.

    Args:
        count: of episodes.
        seed: of all of them.
        tasks: that take turns; default: all.
        start: gives the simulator, in the process that reads.

    Raises:
        ValueError: for a value out of range.
    """

    description = DESCRIPTION

    def __init__(
        self,
        count: int,
        seed: int = 0,
        tasks: Sequence[str] = tuple(TASKS),
        start: Callable[[], Simulator] = start_process,
    ):
        if count < 1 or seed < 0:
            raise ValueError(f"count is {count}, seed {seed}; give at least 1 and none below 0.")
        for task in tasks:
            find_task(task)
        self.count, self.seed, self.tasks, self._start = count, seed, tuple(tasks), start
        self._simulator: Simulator | None = None

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_simulator": None}  # a simulator stays with its process

    @property
    def provenance(self) -> dict[str, Any]:
        """What the episodes follow from, as JSON."""
        settings = {"count": self.count, "seed": self.seed, "tasks": list(self.tasks)}
        return {"source_fingerprint": self.fingerprint, DATASET: settings}

    @property
    def fingerprint(self) -> str:
        facts = [FORMAT, self.seed, self.tasks, BENCHMARK.installation.requirements]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def __getitem__(self, index: int) -> Episode:
        """
        Raises:
            BadEpisodeError: if the expert failed in every attempt.
            IndexError: beyond the last.
            ValueError: the simulator or its assets are missing.
            SimulatorBrokeError: it broke twice.
        """
        if not 0 <= index < self.count:
            raise IndexError(index)
        task = self.tasks[index % len(self.tasks)]
        rng = np.random.default_rng([self.seed, index])
        for _ in range(ATTEMPTS):
            placement = random_placement(find_task(task), rng)
            trial = Trial(task, index, index, "widowx", find_task(task).max_steps, options=placement)
            recording, seen = self._demonstrate(trial)
            if recording.successes[-1]:
                return episode_of(recording, seen, f"{self.seed}-{index}")
        name = f"{DATASET} episode {index} (seed {self.seed}, {task})"
        raise BadEpisodeError(f"{name}: the expert failed {ATTEMPTS} times")

    def close(self) -> None:
        """End the simulator; it starts again when it is needed."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _demonstrate(self, trial: Trial) -> tuple[Recording, list[Observation]]:
        try:
            return demonstrate(self._running(), trial)
        except SimulatorBrokeError:  # a new process may do better
            self.close()
            return demonstrate(self._running(), trial)

    def _running(self) -> Simulator:
        if self._simulator is None:
            self._simulator = self._start()
        return self._simulator


def episode_of(recording: Recording, seen: Sequence[Observation], episode_id: str) -> Episode:
    """A recording as training reads it.

    Args:
        seen: before each step; what came after the last one is not needed.
    """
    steps = len(recording.actions)
    return Episode(
        dataset=DATASET,
        episode_id=episode_id,
        images={camera: [encoded(one.images[camera]) for one in seen[:steps]] for camera in DESCRIPTION.cameras},
        actions=recording.actions.astype(np.float32),
        states=np.array([widowx_state(one.proprioception) for one in seen[:steps]], np.float32),
        instructions=[recording.instructions[0][1]] * steps,
        control_rate_hz=CONTROL_RATE_HZ,
    )


app = typer.Typer(add_completion=False)


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    episodes: Annotated[int, typer.Option(min=1, help="Of the expert; the tasks take turns.")] = 200,
    task: Annotated[list[str] | None, typer.Option(help=f"Repeatable: {', '.join(TASKS)}; default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the objects' places.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes, each with a simulator; 0 uses one.")] = 0,
    shard_size: Annotated[str, typer.Option(help="Of the Parquet files.")] = "500MB",
) -> None:
    """Write the scripted expert's episodes with language motion; run again, it goes on where it stopped."""
    with errors_on_stderr():
        simulator_python(BENCHMARK)  # told here rather than by a worker
        reader = ManiSkill3Episodes(episodes, seed, task or tuple(TASKS))
        try:
            entry = prepare(
                reader,
                output,
                transforms=(motion_transform(reader.description),),
                settings={"motion": True},
                shard_size=parse_size(shard_size),
                workers=workers,
                show_progress=True,
            )
        except SimulatorBrokeError as error:
            raise ValueError(f"{error}; call again to go on.") from error
        finally:
            reader.close()
    typer.echo(summary(entry, output))


if __name__ == "__main__":
    app()
