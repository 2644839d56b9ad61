"""`instructvla rollout`: a checkpoint follows an instruction of one's own on the tabletop."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.intervals import wilson_interval
from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.one_picture import one_line
from instructvla.evaluation.tabletop.checkpoints import DEFAULT_CHECKPOINT, load_checkpoint
from instructvla.evaluation.tabletop.films import Film
from instructvla.evaluation.tabletop.own_instruction import listed_things, own_assignment
from instructvla.evaluation.tabletop.policies import ModelPolicy, TimedPolicy
from instructvla.evaluation.tabletop.rollout import rollouts
from instructvla.evaluation.tabletop.world import MAX_STEPS

NO_RULE = "no success rule for a free instruction"

app = typer.Typer(add_completion=False)


@app.command()
def main(
    instruction: Annotated[str, typer.Option(help="What the robot is asked to do.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder or Hub repository.")] = str(DEFAULT_CHECKPOINT),
    seed: Annotated[int, typer.Option(min=0, help="Of the first scene; further episodes count on from it.")] = 0,
    scene_of: Annotated[
        str | None, typer.Option(help="Task of the benchmark whose scenes to take; default: sampled ones.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Each in a scene of its own.")] = 1,
    think: Annotated[bool | None, typer.Option(help="Answer in words first, or not; default: as trained.")] = None,
    ratio: Annotated[int, typer.Option(min=1, help="n of VLM : action expert = 1 : n.")] = 1,
    max_steps: Annotated[int, typer.Option(min=1, help="Control steps (5 Hz) until an episode ends.")] = MAX_STEPS,
    save_video: Annotated[Path | None, typer.Option(help="Film of the episodes, .mp4 or .gif.")] = None,
) -> None:
    """Run one's own instruction in scenes of the tabletop: what the robot says, whether it succeeds, and a film."""
    with errors_on_stderr():
        film = Film(save_video) if save_video is not None else nullcontext()
        assignments = [own_assignment(instruction, seed + i, scene_of) for i in range(episodes)]
        policy = TimedPolicy(ModelPolicy(load_checkpoint(model), think=think, ratio=ratio, name=model))
        outcomes = []
        with film as watch:
            for assignment in assignments:
                typer.echo(f"on the table  {listed_things(assignment.trial.scene)}")
                outcomes += rollouts(policy, [assignment], environments=1, max_steps=max_steps, watch=watch)
                typer.echo("\n".join(outcome_lines(outcomes[-1])))
    for line in closing_lines(outcomes):
        typer.echo(line)
    typer.echo(f"time          {policy.milliseconds:.0f} ms per decision")
    if save_video is not None:
        typer.echo(f"film          {save_video}")


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """What was asked and answered, and what came of it."""
    yield f"you           {one_line(outcome.instruction)}"
    for response in outcome.responses:
        yield f"robot         {one_line(response)}"
    if outcome.error is not None:
        yield f"result        broke off after {outcome.steps} steps: {outcome.error}"
    elif outcome.success is None:
        yield f"result        {outcome.steps} steps; {NO_RULE}"
    else:
        yield f"result        {'success' if outcome.success else 'no success'} after {outcome.steps} steps"


def closing_lines(outcomes: list[Outcome]) -> Iterator[str]:
    """The rate, if there were several episodes that can be judged."""
    judged = [outcome.success for outcome in outcomes if outcome.success is not None]
    if len(judged) > 1:
        low, high = wilson_interval(sum(judged), len(judged))
        yield f"success       {sum(judged)} of {len(judged)} (95 % interval {low:.0%} to {high:.0%})"


if __name__ == "__main__":
    app()
