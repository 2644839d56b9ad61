"""`instructvla tabletop`: success rates of a checkpoint, the expert or chance on Tabletop-Instruct."""

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.tabletop.benchmark import TRIALS_PER_LEVEL, rates, run_benchmark, select_tasks, trials_of
from instructvla.evaluation.tabletop.checkpoints import load_checkpoint
from instructvla.evaluation.tabletop.phrases import Level
from instructvla.evaluation.tabletop.policies import ExpertPolicy, ModelPolicy, Policy, RandomPolicy
from instructvla.evaluation.tabletop.rollout import ENVIRONMENTS
from instructvla.evaluation.tabletop.world import MAX_STEPS


class PolicyKind(StrEnum):
    MODEL = "model"
    EXPERT = "expert"
    RANDOM = "random"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[str | None, typer.Argument(help="Checkpoint folder or Hub repository.")] = None,
    policy: Annotated[PolicyKind, typer.Option(help="The expert is the ceiling, random actions the floor.")] = "model",
    tasks: Annotated[
        list[str] | None,
        typer.Option(help="Level (atomic, aggregation, situated), category or task; repeatable; default: all."),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="At least so many per level, equally many per task.")
    ] = TRIALS_PER_LEVEL,
    full: Annotated[bool, typer.Option("--full", help="As many as the benchmark's file says instead.")] = False,
    think: Annotated[bool | None, typer.Option(help="Answer in words first, or not; default: as trained.")] = None,
    ratio: Annotated[int, typer.Option(min=1, help="n of VLM : action expert = 1 : n.")] = 1,
    execute: Annotated[
        int | None, typer.Option(min=1, help="Actions executed per chunk; default: half of the chunk.")
    ] = None,
    rethink: Annotated[
        int | None, typer.Option(min=1, help="Think again at every so many-th run of the VLM; default: never.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Control steps until an episode has failed.")] = MAX_STEPS,
    environments: Annotated[int, typer.Option(min=1, help="Robots at once in each process.")] = ENVIRONMENTS,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder that keeps the outcomes; the same call goes on where it stopped.")
    ] = None,
) -> None:
    """Success rates on Tabletop-Instruct, per level and category, with 95 % intervals."""
    with errors_on_stderr():
        chosen = trials_of(select_tasks(tasks or ()), None if full else trials)
        options = {"think": think, "ratio": ratio, "execute": execute, "rethink": rethink}
        make = partial(make_policy, policy, model, **options)
        outcomes = run_benchmark(make, chosen, output, environments, workers, max_steps, show_progress=True)
    typer.echo("\n".join(rate_lines(outcomes)))
    if output is not None:
        typer.echo(f"outcomes     {output}")


def make_policy(kind: str, model: str | None, **options: Any) -> Policy:
    """The policy of a command line.

    Raises:
        ValueError: for a model that can't be loaded or doesn't fit, or options that the policy doesn't have.
    """
    if kind == PolicyKind.MODEL:
        if model is None:
            raise ValueError("give a checkpoint folder or Hub repository, or --policy expert, or --policy random.")
        return ModelPolicy(load_checkpoint(model), name=model, **options)
    if model is not None:
        raise ValueError(f"--policy {kind} takes no checkpoint, but {model} is given; leave one of them out.")
    if given := [name for name, value in options.items() if value not in (None, 1)]:
        raise ValueError(f"--policy {kind} has no --{given[0]}; it is an option of checkpoints.")
    return ExpertPolicy() if kind == PolicyKind.EXPERT else RandomPolicy()


def rate_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """One line per level and, below it, per category."""
    lines = [f"{'':26} {'success':>9}  rate and 95 % interval"]
    for name, rate in rates(outcomes).items():
        shown = name if name in list(Level) else f"  {name}"
        lines.append(f"{shown:26} {rate.successes:4}/{rate.trials:<4}  {rate}")
    if errors := [outcome for outcome in outcomes if outcome.error]:
        lines.append(f"{len(errors)} broke off, the first ({errors[0].task}): {errors[0].error}")
    return lines


if __name__ == "__main__":
    app()
