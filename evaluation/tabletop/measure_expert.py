"""How often the expert succeeds, per skill and split: `python -m instructvla.evaluation.tabletop.measure_expert`."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import gymnasium
import typer

from instructvla.evaluation.intervals import wilson_interval
from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.expert import Expert
from instructvla.evaluation.tabletop.sampling import SPLITS
from instructvla.evaluation.tabletop.scene import Skill

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Outcome:
    """One episode of the expert.

    Args:
        seed: of the episode.
        instruction: what was to be done.
        success: whether it was.
        steps: how many it took.
    """

    seed: int
    instruction: str
    success: bool
    steps: int


def expert_episode(
    env: gymnasium.Env, seed: int, split: str, skill: Skill | None = None, noise: float = 0.0
) -> Outcome:
    """Runs the expert through one episode."""
    _, info = env.reset(seed=seed, options={"split": split, "skill": skill})
    expert = Expert(info["scene"], info["task"], noise, seed)
    steps, done = 0, False
    while not done:
        action = expert.perturbed(expert.act(env.unwrapped.state()))
        _, _, success, truncated, info = env.step(action)
        steps, done = steps + 1, success or truncated
    return Outcome(seed, info["instruction"], info["success"], steps)


@app.command()
def main(
    seeds: Annotated[int, typer.Option(min=1, help="Episodes per skill and split.")] = 200,
    first_seed: Annotated[int, typer.Option(help="The first one.")] = 0,
    noise: Annotated[float, typer.Option(min=0.0, help="Metres (standard deviation) added to every move.")] = 0.0,
) -> None:
    """Success of the expert with 95 % intervals, and the seeds at which it failed."""
    env = gymnasium.make(ENVIRONMENT, cameras=())
    typer.echo(f"{'split':6} {'skill':10} {'success':>9} {'rate':>7} {'95 % interval':>15} {'steps':>6}  failed seeds")
    for split in SPLITS:
        for skill in Skill:
            outcomes = [expert_episode(env, first_seed + i, split, skill, noise) for i in range(seeds)]
            counts = Counter(outcome.success for outcome in outcomes)
            low, high = wilson_interval(counts[True], seeds)
            steps = sum(outcome.steps for outcome in outcomes if outcome.success) / max(counts[True], 1)
            failed = " ".join(str(outcome.seed) for outcome in outcomes if not outcome.success)
            typer.echo(
                f"{split:6} {skill:10} {counts[True]:5}/{seeds} {counts[True] / seeds:7.1%} "
                f"{low:7.1%}–{high:.1%} {steps:6.1f}  {failed}"
            )
    env.close()


if __name__ == "__main__":
    app()
