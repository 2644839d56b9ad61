"""`instructvla open-loop`: a checkpoint's action error on recorded episodes, and a plot of it."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.hub_source import local_folder
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.training.data.readers import open_episodes
from instructvla.training.open_loop import DISTANCE, ERROR, OpenLoopProbe, distinct
from instructvla.training.open_loop_plot import plot_overlay

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or Hub repository.")],
    source: Annotated[str, typer.Argument(help="Prepared dataset, RLDS or LeRobot folder, or Hub dataset.")],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    dataset: Annotated[str | None, typer.Option(help="Key of the model's statistics; default: the mapping's.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many are drawn.")] = 16,
    chunks: Annotated[int, typer.Option(min=1, help="Action chunks compared of each.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Chunks predicted at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice and of the noise.")] = 0,
    device: Annotated[str | None, typer.Option(help="E.g. cuda; default: an accelerator, if there is one.")] = None,
    output: Annotated[Path, typer.Option(help="Of the plot.")] = Path("outputs/open_loop.png"),
) -> None:
    """Mean error of a checkpoint's action chunks against recorded ones, per dimension."""
    with errors_on_stderr():
        local_folder(model, ["config.json"])
        policy = InstructVLAForConditionalGeneration.from_pretrained(model).to(device or default_device())
        reader = open_episodes(source, mapping, split, dataset)
        probe = OpenLoopProbe(
            reader,
            policy.processor,
            horizon=policy.config.horizon,
            episodes=episodes,
            chunks_per_episode=chunks,
            seed=seed,
        )
        result = probe.measure(policy, batch_size=batch_size)
        lines = table(probe.metrics(result), policy.processor.action_names, policy.processor.action_units)
        plot_overlay(output, probe, result, title=f"{Path(model).name} on {Path(source).name}")
    typer.echo("\n".join([*lines, f"{len(probe.chunks)} chunks; plot: {output}"]))


def default_device() -> str:
    return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"


def table(metrics: dict[str, float], names: list[str], units: list[str]) -> list[str]:
    """One line per dimension, and one for all."""
    rows = [("dimension", "mean error", "unit", "of range")]
    for name, unit in zip(distinct(names), units, strict=True):
        share = metrics.get(f"{ERROR}/{name}")
        shown = "constant" if share is None else f"{share:.2%}"
        rows.append((name, f"{metrics[f'{DISTANCE}/{name}']:.4g}", unit, shown))
    rows.append(("mean", "", "", f"{metrics[ERROR]:.2%}"))
    first, second, third, fourth = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [f"{a:<{first}}  {b:>{second}}  {c:<{third}}  {d:>{fourth}}" for a, b, c, d in rows]


if __name__ == "__main__":
    app()
