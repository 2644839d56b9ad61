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
from instructvla.evaluation.tabletop.picture_chats import CHAT_FILE, PictureChats, write_chats
from instructvla.training.data.prepare import motion_transform, prepare
from instructvla.training.run_config import read_run_config
from instructvla.training.trainer import last_checkpoint, saved_step
from instructvla.training.training_run import is_finished, run

CONFIGS = Path(__file__).parent / "configs" / "tabletop"
ABLATIONS = sorted(file.stem for file in (CONFIGS / "ablations").glob("*.yaml"))
SHARD_SIZE = 50_000_000  # bytes


@dataclass(frozen=True)
class TabletopData:
    """How much is generated.

    Args:
        pictures: with conversations.
        held_out_pictures: likewise, of the test split.
        episodes: of the scripted expert.
        seed: of all.
        image_size: px.
        workers: processes; 0 generates in this one.
    """

    pictures: int = 30_000
    held_out_pictures: int = 500
    episodes: int = 16_000
    seed: int = 0
    image_size: int = 128
    workers: int = 2


def generate(data: TabletopData, folder: Path) -> None:
    """Conversations about pictures, held-out ones and episodes, in the folders "chats", "chats_test" and "episodes".

    Raises:
        ValueError: a folder holds data of other settings.
    """
    for name, count, split in (("chats", data.pictures, "train"), ("chats_test", data.held_out_pictures, "test")):
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


def train(
    stage: int,
    folder: Path,
    started_from: Path | None = None,
    overrides: Sequence[str] = (),
    ablation: str | None = None,
) -> Path:
    """One stage to its last step, from its last checkpoint if it has one; returns the final checkpoint.

    Args:
        stage: 0, 1 or 2, as `configs/tabletop` describes it.
        folder: of the data, and of the runs.
        started_from: the checkpoint of the stage before.
        overrides: "section.key=value" above the file.
        ablation: one of `ABLATIONS`, of stage 1.

    Raises:
        ValueError: as `training_run.run`, and when the run was stopped by a signal.
    """
    name = f"stage{stage}" if ablation is None else f"ablations/{ablation}"
    file = CONFIGS / f"{name}.yaml"
    config = read_run_config(file, [*places(name, file, folder, started_from), *overrides])
    resume = last_checkpoint(config.output_dir)
    if resume is None or not is_finished(resume, config):
        trainer = run(stage, config, resume)
        if trainer.stopped_by_signal:
            raise ValueError(f"{name} was stopped at step {trainer.state.global_step}; call again to go on")
    checkpoint = last_checkpoint(config.output_dir)
    typer.echo(f"{name}: {checkpoint}, step {saved_step(checkpoint)}")
    return checkpoint


def places(name: str, file: Path, folder: Path, started_from: Path | None) -> list[str]:
    """Where a run finds its data and model, and puts its checkpoints."""
    config = read_run_config(file)
    settings = [f"data.datasets.0.source={folder / 'episodes'}", f"output_dir={folder / name}"]
    if config.data.chat is not None:
        settings.append(f"data.chat.file={folder / 'chats' / CHAT_FILE}")
    if config.retention is not None:
        settings.append(f"retention.file={folder / 'chats_test' / CHAT_FILE}")
    return settings if started_from is None else [*settings, f"model.source={started_from}"]


def chosen_ablations(names: Sequence[str]) -> list[str]:
    """`names`, or all of them for "all".

    Raises:
        ValueError: an unknown one.
    """
    if unknown := [name for name in names if name not in (*ABLATIONS, "all")]:
        raise ValueError(f"there is no ablation {unknown[0]!r}; there are {', '.join(ABLATIONS)}, and all.")
    return ABLATIONS if "all" in names else list(names)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Of the generated data.")] = Path("outputs/tabletop"),
    pictures: Annotated[int, typer.Option(min=1, help="With conversations, for stage 0.")] = TabletopData.pictures,
    episodes: Annotated[int, typer.Option(min=1, help="Of the scripted expert.")] = TabletopData.episodes,
    seed: Annotated[int, typer.Option(min=0, help="Of the data.")] = TabletopData.seed,
    workers: Annotated[int, typer.Option(min=0, help="Processes that generate data.")] = TabletopData.workers,
    until: Annotated[int, typer.Option(min=0, max=2, help="Last stage to train.")] = 2,
    ablation: Annotated[
        list[str] | None,
        typer.Option(help=f"Train this instead of stages 1 and 2; repeatable: all, {', '.join(ABLATIONS)}."),
    ] = None,
) -> None:
    """Make the data, then train stage 0, 1 and 2, or ablations; called again, it goes on where it stopped."""
    with errors_on_stderr():
        chosen = chosen_ablations(ablation or ())
        generate(TabletopData(pictures, episodes=episodes, seed=seed, workers=workers), folder)
        checkpoint = None
        for stage in range(until + 1 if not chosen else 1):
            checkpoint = train(stage, folder, checkpoint)
        for name in chosen:
            train(1, folder, checkpoint, ablation=name)


if __name__ == "__main__":
    app()
