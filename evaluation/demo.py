"""The idea in one minute: an arm hears three instructions, says what it will do, and does it, on film (`make demo`)."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.film_writer import check_film
from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.tabletop.checkpoints import DEFAULT_CHECKPOINT, load_checkpoint
from instructvla.evaluation.tabletop.films import Film
from instructvla.evaluation.tabletop.instruct import Trial
from instructvla.evaluation.tabletop.policies import ModelPolicy, Policy, TimedPolicy
from instructvla.evaluation.tabletop.rollout import Assignment, rollouts
from instructvla.evaluation.tabletop.rollout_command import outcome_lines
from instructvla.evaluation.tabletop.sampling import Kinded, arrange
from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.world import MAX_STEPS

DEFAULT_OUTPUT = Path("outputs/demo.mp4")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Show:
    """One episode of the demo.

    Args:
        kind: of its instruction.
        instruction: what the arm hears.
        task: what that means here.
        things: (item, colour) on the table.
        receptacles: likewise.
        seed: of the places, the light and the arm's start.
    """

    kind: str
    instruction: str
    task: Task
    things: tuple[Kinded, ...]
    receptacles: tuple[Kinded, ...]
    seed: int

    def assignment(self) -> Assignment:
        rng = np.random.default_rng(self.seed)
        scene = arrange(rng, "train", self.things, self.receptacles, None, self.task)
        return Assignment(self.kind, 0, Trial(self.seed, scene, self.task, self.instruction))


SHOWS = (
    Show(
        "atomic",
        "pick up the apple",
        Task(Skill.PICK_UP, "apple"),
        (("apple", "red"), ("banana", "yellow"), ("sponge", "yellow")),
        (("bowl", "white"),),
        seed=1,
    ),
    Show(
        "rewritten, in French",
        "saisis la banane",
        Task(Skill.PICK_UP, "banana"),
        (("banana", "yellow"), ("hammer", "brown"), ("tomato", "red"), ("block", "blue")),
        (("plate", "blue"),),
        seed=2,
    ),
    Show(
        "situated",
        "I am thirsty, but no soda please",
        Task(Skill.PICK_UP, "water bottle"),
        (("water bottle", "blue"), ("cola can", "red"), ("lemonade can", "green"), ("sponge", "yellow")),
        (("plate", "white"),),
        seed=3,
    ),
)


def run_demo(
    policy: Policy, output: Path, shows: Sequence[Show] = SHOWS, max_steps: int = MAX_STEPS
) -> Iterator[tuple[Show, Outcome]]:
    """Runs the shows one after another; the film is at `output` when the last one has been given.

    Raises:
        ValueError: if the film can't be written, or no OpenGL library is there.
    """
    with Film(output) as film:
        for show in shows:
            (outcome,) = rollouts(policy, [show.assignment()], 1, max_steps, watch=film)
            yield show, outcome


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="The film, .mp4 or .gif.")] = DEFAULT_OUTPUT,
    model: Annotated[str, typer.Option(help="Checkpoint folder or Hub repository.")] = str(DEFAULT_CHECKPOINT),
    think: Annotated[bool | None, typer.Option(help="Answer in words first, or not; default: as trained.")] = None,
    ratio: Annotated[int, typer.Option(min=1, help="n of VLM : action expert = 1 : n.")] = 1,
    max_steps: Annotated[int, typer.Option(min=1, help="Control steps (5 Hz) until an episode ends.")] = MAX_STEPS,
) -> None:
    """Three instructions in closed loop: what the arm thinks, whether it succeeds, and a film."""
    start = time.perf_counter()
    with errors_on_stderr():
        check_film(output)
        policy = TimedPolicy(ModelPolicy(load_checkpoint(model), think=think, ratio=ratio, name=model))
        typer.echo(f"model         {model}")
        successes = 0
        for show, outcome in run_demo(policy, output, max_steps=max_steps):
            typer.echo("\n".join(["", f"[{show.kind}]", *outcome_lines(outcome)]))
            successes += bool(outcome.success)
    typer.echo(f"\n{successes} of {len(SHOWS)} succeeded; {policy.milliseconds:.0f} ms per decision")
    typer.echo(f"film          {output}, made in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    app()
