"""Speed of a checkpoint on the tabletop: `python -m instructvla.evaluation.tabletop.bench_policy`."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import gymnasium
import torch
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.bench_world import PROCESSES, Work, run_processes, speed_line
from instructvla.evaluation.tabletop.benchmark import trials_of
from instructvla.evaluation.tabletop.checkpoints import DEFAULT_CHECKPOINT, load_checkpoint
from instructvla.evaluation.tabletop.instruct import instruct_task, instruct_tasks, trial
from instructvla.evaluation.tabletop.policies import Decision, ModelPolicy, Moment
from instructvla.evaluation.tabletop.rollout import Assignment, Robot, rollouts
from instructvla.evaluation.tabletop.world import MAX_STEPS
from instructvla.nano import untrained_nano

BATCHES = (1, 8)
UNTRAINED = "the untrained nano model"

app = typer.Typer(add_completion=False)


def bench_model(name: str | None):
    """A checkpoint, or the untrained nano model, which speaks as long as it may."""
    return untrained_nano(seed=0, state_dim=8) if name is None else load_checkpoint(name)


def moments_of(policy: ModelPolicy, count: int) -> list[Moment]:
    """First moments of some trials of the benchmark."""
    moments = []
    for name, index in trials_of(instruct_tasks())[:count]:
        env = gymnasium.make(ENVIRONMENT, cameras=())
        robot = Robot(Assignment(name, index, trial(instruct_task(name), index)), env, MAX_STEPS)
        moments.append(robot.moment(policy.cameras, policy.image_size))
        env.close()
    return moments


def decision_milliseconds(model, batch: int, repeats: int) -> dict[str, float]:
    """Per robot, of each way to decide."""
    silent, thinking = ModelPolicy(model, think=False, ratio=2), ModelPolicy(model, think=True, ratio=2)
    first = moments_of(thinking, batch)
    thought = thinking.act(first)
    work = {
        "think, then act": (thinking, first),
        "act, words reused": (thinking, later(first, thought, number=2)),
        "act without words": (silent, first),
        "action expert alone": (thinking, later(first, thought, number=1)),
    }
    times = {}
    for name, (policy, moments) in work.items():
        policy.act(moments)
        start = time.perf_counter()
        for _ in range(repeats):
            policy.act(moments)
        times[name] = (time.perf_counter() - start) / repeats / batch * 1000
    return times


def later(moments: Sequence[Moment], decisions: Sequence[Decision], number: int) -> list[Moment]:
    """The same robots at a later decision."""
    return [
        Moment(one.instruction, one.seed, number, one.pictures, one.state, one.world, decision.memory)
        for one, decision in zip(moments, decisions, strict=True)
    ]


def run_model(name: str | None, environments: int, episodes: int, process: int = 0) -> Work:
    """Rollouts that think; the first ones, which load the graphics, aren't timed."""
    torch.set_num_threads(1)
    policy = ModelPolicy(bench_model(name), think=True)
    keys = trials_of(instruct_tasks())[process * episodes :][:episodes]
    trials = [Assignment(task, index, trial(instruct_task(task), index)) for task, index in keys]
    list(rollouts(policy, trials[:1], max_steps=1))
    start = time.perf_counter()
    outcomes = list(rollouts(policy, trials, environments))
    return Work(len(outcomes), sum(outcome.steps for outcome in outcomes), time.perf_counter() - start)


@app.command()
def main(
    model: Annotated[str | None, typer.Option(help=f"Default: {DEFAULT_CHECKPOINT} or {UNTRAINED}.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Per process.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Of each kind of decision.")] = 10,
) -> None:
    """Milliseconds of each kind of decision, alone and in a batch, and rollouts by 1 and 2 processes."""
    torch.set_num_threads(1)
    with errors_on_stderr():
        if model is None and DEFAULT_CHECKPOINT.is_dir():
            model = str(DEFAULT_CHECKPOINT)
        policy = bench_model(model)
        columns = [decision_milliseconds(policy, batch, repeats) for batch in BATCHES]
    execute = ModelPolicy(policy).execute
    typer.echo(f"{model or UNTRAINED}; ms per robot and decision (per control step, as {execute} are executed of each)")
    typer.echo(" " * 20 + "".join(f"  batch {batch}".ljust(19) for batch in BATCHES))
    for name in columns[0]:
        cells = (f"{column[name]:8.1f} ({column[name] / execute:.1f})" for column in columns)
        typer.echo(f"{name:20}" + "".join(cell.ljust(19) for cell in cells))
    for environments in BATCHES:
        for count in PROCESSES:
            works = run_processes(count, partial(run_model, model, environments, episodes))
            typer.echo(f"rollouts, batch {environments}, {speed_line(works)}")


if __name__ == "__main__":
    app()
