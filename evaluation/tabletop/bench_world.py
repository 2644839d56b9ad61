"""Speed of the tabletop with pictures: `python -m instructvla.evaluation.tabletop.bench_world`."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Annotated

import gymnasium
import numpy as np
import typer

from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.measure_expert import expert_episode
from instructvla.evaluation.tabletop.world import CAMERAS

PROCESSES = (1, 2)
REST = np.array([0, 0, 0, 0, 0, 0, 1.0])

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Work:
    """What one process did.

    Args:
        episodes: how many.
        steps: control steps of all of them.
        seconds: wall time, without the start of the process.
    """

    episodes: int
    steps: int
    seconds: float


def run_expert(image_size: int, episodes: int, process: int = 0) -> Work:
    """Episodes of the expert with front and wrist pictures; a first one, which loads the graphics, isn't timed."""
    first_seed = 1000 * process
    env = gymnasium.make(ENVIRONMENT, image_size=image_size)
    expert_episode(env, first_seed, "train")
    start = time.perf_counter()
    steps = sum(expert_episode(env, first_seed + i, "train").steps for i in range(episodes))
    seconds = time.perf_counter() - start
    env.close()
    return Work(episodes, steps, seconds)


def run_processes(count: int, run: Callable[[int], Work]) -> list[Work]:
    """The same in several new processes at once; `run` gets the number of its process."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return list(pool.map(run, range(count)))


def speed_line(works: Sequence[Work]) -> str:
    """Of all processes together."""
    seconds = max(work.seconds for work in works)
    steps, episodes = sum(work.steps for work in works), sum(work.episodes for work in works)
    name = f"{len(works)} process{'es' if len(works) > 1 else ''}"
    return f"{name:11} {steps / seconds:6.0f} steps/s {episodes / seconds * 60:6.0f} episodes/min"


def milliseconds(image_size: int, repeats: int = 20) -> dict[str, float]:
    """Of a reset, of a step without pictures, of each picture, and of a frame of film."""
    env = gymnasium.make(ENVIRONMENT, image_size=image_size).unwrapped
    env.reset(seed=0)
    pieces = {
        "reset with both pictures": lambda: env.reset(seed=1),
        "control step, no picture": lambda: env.simulation.step(REST),
        "state": env.state,
        **{f"{camera} picture": lambda camera=camera: env.simulation.picture(camera, image_size) for camera in CAMERAS},
        "film frame of 384 px": lambda: env.film_frame(size=384),
    }
    times = {}
    for name, piece in pieces.items():
        piece()
        start = time.perf_counter()
        for _ in range(repeats):
            piece()
        times[name] = (time.perf_counter() - start) / repeats * 1000
    env.close()
    return times


@app.command()
def main(
    image_size: Annotated[int, typer.Option(min=16, max=512, help="Pixels of both cameras' pictures.")] = 112,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per process.")] = 60,
) -> None:
    """Environment steps/s and expert episodes/min with front and wrist pictures, by 1 and 2 processes."""
    for name, value in milliseconds(image_size).items():
        typer.echo(
            f"{name:26} {value:7.2f} ms at {image_size} px" if "film" not in name else f"{name:26} {value:7.2f} ms"
        )
    for count in PROCESSES:
        typer.echo(speed_line(run_processes(count, partial(run_expert, image_size, episodes))))


if __name__ == "__main__":
    app()
