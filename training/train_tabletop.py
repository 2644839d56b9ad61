"""`make train-tabletop`: the embedded world's small model from nothing, its data and three stages, in resumable pieces.

Each piece is skipped where it is finished and goes on where it was interrupted, so the command can be stopped (Ctrl-C,
SIGTERM) and called again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.tabletop.expert_episodes import TabletopEpisodes
from instructvla.evaluation.tabletop.picture_chats import PictureChats, write_chats
from instructvla.training.data.prepare import motion_transform, prepare
from instructvla.training.run_config import read_run_config
from instructvla.training.trainer import last_checkpoint, saved_step
from instructvla.training.training_run import is_finished, run

CONFIGS = Path(__file__).parent / "configs" / "tabletop"
SHARD_SIZE = 50_000_000  # bytes
HELD_OUT_CHATS = 500


@dataclass(frozen=True)
class TabletopData:
    """How much is generated.

    Args:
        pictures: with conversations.
        episodes: of the scripted expert.
        seed: of both.
        image_size: px.
        workers: processes; 0 generates in this one.
    """

    pictures: int = 20_000
    episodes: int = 9_000
    seed: int = 0
    image_size: int = 128
    workers: int = 2


def generate(data: TabletopData, folder: Path) -> None:
    """Conversations about pictures, held-out ones, and episodes, in the folders "chats", "chats_test" and "episodes".

    Raises:
        ValueError: a folder holds data of other settings.
    """
    for name, count, split in (("chats", data.pictures, "train"), ("chats_test", HELD_OUT_CHATS, "test")):
        chats = PictureChats(count, split, data.seed, data.image_size)
        write_chats(chats, folder / name, data.workers, show_progress=True)
    episodes = TabletopEpisodes(data.episodes, "train", data.seed, data.image_size)
    prepare(
        episodes,
        folder / "episodes",
        transforms=(motion_transform(episodes.description),),
        settings={"motion": True},
        shard_size=SHARD_SIZE,
        workers=data.workers,
        show_progress=True,
    )


def train(stage: int, overrides: Sequence[str] = (), configs: Path = CONFIGS) -> Path:
    """One stage to its last step, from its last checkpoint if it has one; returns the final checkpoint.

    Raises:
        ValueError: as `training_run.run`, and when the run was stopped by a signal.
    """
    config = read_run_config(configs / f"stage{stage}.yaml", overrides)
    resume = last_checkpoint(config.output_dir)
    if resume is None or not is_finished(resume, config):
        trainer = run(stage, config, resume)
        if trainer.stopped_by_signal:
            raise ValueError(f"stage {stage} was stopped at step {trainer.state.global_step}; call again to go on")
    checkpoint = last_checkpoint(config.output_dir)
    typer.echo(f"stage {stage}: {checkpoint}, step {saved_step(checkpoint)}")
    return checkpoint


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Of the generated data.")] = Path("outputs/tabletop"),
    pictures: Annotated[int, typer.Option(min=1, help="With conversations, for stage 0.")] = TabletopData.pictures,
    episodes: Annotated[int, typer.Option(min=1, help="Of the scripted expert.")] = TabletopData.episodes,
    seed: Annotated[int, typer.Option(min=0, help="Of the data.")] = TabletopData.seed,
    workers: Annotated[int, typer.Option(min=0, help="Processes that generate data.")] = TabletopData.workers,
    until: Annotated[int, typer.Option(min=0, max=2, help="Last stage to train.")] = 2,
) -> None:
    """Make the data, then train stage 0, 1 and 2; called again, it goes on where it stopped."""
    with errors_on_stderr():
        generate(TabletopData(pictures, episodes, seed, workers=workers), folder)
        for stage in range(until + 1):
            train(stage)


if __name__ == "__main__":
    app()
