"""The tabletop's checkpoint folder: the trained model, a card with its runs, results and commands, and loss curves.

`python -m instructvla.training.release_tabletop` after `make train-tabletop` and `make tabletop-results`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.checkpoint_instructvla import library_versions
from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.tabletop.phrases import Level
from instructvla.model_card import write_model_card
from instructvla.training.model_source import load
from instructvla.training.train_tabletop import TabletopData
from instructvla.training.trainer import TRAINER_STATE, last_checkpoint

STAGES = ("stage0", "stage1", "stage2")
OUTPUT = Path("checkpoints/tabletop-nano")
CURVES = "curves.png"
RUN_TABLES = ("Settings", "Trained parameters", "Losses")  # of the stages before the last, which has all of its own
LOSSES = {"chat_loss": "text, conversations", "lm_loss": "text, robot", "flow_loss": "flow"}
MOST_CAUSES = 5


def stage_checkpoints(folder: Path) -> dict[str, Path]:
    """The last checkpoint of each stage.

    Raises:
        ValueError: a stage without one.
    """
    found = {stage: last_checkpoint(folder / stage) for stage in STAGES}
    if missing := [stage for stage, checkpoint in found.items() if checkpoint is None]:
        raise ValueError(f"{folder / missing[0]} has no checkpoint; `make train-tabletop` goes on with it.")
    return found


def read_results(file: Path) -> dict[str, Any]:
    """What `make tabletop-results` wrote.

    Raises:
        ValueError: no such file.
    """
    if not file.is_file():
        raise ValueError(f"there are no results {file}; `make tabletop-results` writes them.")
    return json.loads(file.read_text(encoding="utf-8"))


def made_by(data: TabletopData) -> dict[str, Any]:
    """The command, seeds and versions of the whole training, as a table of the card."""
    rows = [
        ["command", "make train-tabletop"],
        ["pictures with conversations", data.pictures],
        ["episodes of the scripted expert", data.episodes],
        ["seed of the data", data.seed],
        *[[f"version of {package}", version] for package, version in library_versions().items()],
    ]
    note = f"![losses of the three stages]({CURVES})"
    return {"title": "How it was made", "note": note, "header": ["", ""], "rows": rows}


def training_tables(checkpoints: Mapping[str, Path], data: TabletopData) -> list[dict[str, Any]]:
    """All stages' tables, each with its stage in the title."""
    tables = [made_by(data)]
    for stage, checkpoint in checkpoints.items():
        report = json.loads((checkpoint / "training_report.json").read_text(encoding="utf-8"))
        for table in report["tables"]:
            if stage == STAGES[-1] or table["title"] in RUN_TABLES:
                tables.append(table | {"title": f"Stage {stage[-1]}: {table['title']}"})
    return tables


def result_tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Success by level, answers by category and the most frequent causes of failure, as the report has them."""
    rows = results["rows"]
    levels = [str(level) for level in Level]
    success = {
        "title": "Success on Tabletop-Instruct",
        "note": "In %, with Wilson's 95 % intervals and the number of trials; printed by `make tabletop-results`.",
        "header": ["", *levels],
        "rows": [[row["title"], *(shown(row["rates"].get(level)) for level in levels)] for row in rows],
    }
    answers = results["answers"]
    categories = list(next(iter(answers.values())))
    exam = {
        "title": "Answers about pictures of unseen tables, exactly right",
        "header": ["", *categories],
        "rows": [[title, *(shown(rates.get(name)) for name in categories)] for title, rates in answers.items()],
    }
    acting = next(row for row in rows if row["settings"].get("think"))
    causes = sorted(acting["causes"].items(), key=lambda item: -item[1])[:MOST_CAUSES]
    failures = {
        "title": f"The most frequent causes of failure ({acting['title']})",
        "note": "Told by rules from the simulator's states (`evaluation/tabletop/failures.py`).",
        "header": ["cause", "trials"],
        "rows": [list(cause) for cause in causes],
    }
    return [success, exam, failures]


def shown(rate: Mapping[str, Any] | None) -> str | None:
    if rate is None or rate["rate"] is None:
        return None
    return f"{100 * rate['rate']:.1f} [{100 * rate['low']:.1f}–{100 * rate['high']:.1f}] ({rate['trials']})"


def plot_curves(checkpoints: Mapping[str, Path], file: Path) -> None:
    """Losses over optimiser steps, one panel per stage."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (stage, checkpoint) in zip(figure.subplots(1, len(checkpoints)), checkpoints.items(), strict=True):
        log = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["log_history"]
        for name, label in LOSSES.items():
            points = [(entry["step"], entry[name]) for entry in log if entry.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set(title=f"stage {stage[-1]}", xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
    figure.savefig(file, dpi=100)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Of the training runs.")] = Path("outputs/tabletop"),
    results: Annotated[Path | None, typer.Option(help="report.json; default: of the runs' results.")] = None,
    output: Annotated[Path, typer.Option(help="Of the checkpoint.")] = OUTPUT,
) -> None:
    """Write the trained model with a card of its runs, results, commands and versions."""
    with errors_on_stderr():
        checkpoints = stage_checkpoints(folder)
        tables = result_tables(read_results(results or folder / "results" / "report.json"))
        model = load(checkpoints[STAGES[-1]])
        report = {
            "stage": "2, vision-language-action instruction tuning",
            "tables": [*tables, *training_tables(checkpoints, TabletopData())],
        }
        model.training_report = report
        model.save_pretrained(output)
        plot_curves(checkpoints, output / CURVES)
        write_model_card(model, output, str(output), training=report)
    typer.echo(f"released: {output}")


if __name__ == "__main__":
    app()
