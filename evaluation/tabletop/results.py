"""`make tabletop-results`: the paper's comparisons on the tabletop, every row run or read, then printed as one report.

Rows: random actions and the scripted expert as floor and ceiling; the Expert of stage 1; the Generalist of stage 2 that
thinks, does not think, or runs its VLM at every second decision (paper Fig. 6 g, section 3.1); the ablations of stage 1
(Fig. 6 a to d); and the answers about pictures before and after stages 1 and 2.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.tabletop.benchmark import TRIALS_PER_LEVEL, run_benchmark, select_tasks, trials_of
from instructvla.evaluation.tabletop.benchmark_command import PolicyKind, make_policy
from instructvla.evaluation.tabletop.question_answering import question_rows
from instructvla.evaluation.tabletop.report import ResultRow, report_text
from instructvla.training.trainer import last_checkpoint

ALL_LEVELS: tuple[str, ...] = ()
ATOMIC = ("atomic",)

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Row:
    """One run of the benchmark.

    Args:
        title: of the table's row.
        run: training run whose last checkpoint acts, as a folder's name; None for a policy without a model.
        kind: of policy.
        tasks: levels; all by default.
        options: of the policy.
    """

    title: str
    run: str | None = None
    kind: PolicyKind = PolicyKind.MODEL
    tasks: tuple[str, ...] = ALL_LEVELS
    options: dict[str, Any] = field(default_factory=dict)


ROWS = (
    Row("random actions", kind=PolicyKind.RANDOM),
    Row("scripted expert", kind=PolicyKind.EXPERT),
    Row("Expert (stage 1)", "stage1"),
    Row("Generalist, thinking", "stage2", options={"think": True}),
    Row("Generalist, not thinking", "stage2", options={"think": False}),
    Row("Generalist, thinking, VLM:expert 1:2", "stage2", options={"think": True, "ratio": 2}),
)
STAGES = {"after stage 0": "stage0", "after stage 1": "stage1", "after stage 2": "stage2"}


def ablation_rows(folder: Path) -> list[Row]:
    """One row per trained ablation, the reference first."""
    names = sorted(path.name for path in (folder / "ablations").glob("*") if last_checkpoint(path) is not None)
    names.sort(key=lambda name: name != "reference")
    return [Row(f"stage 1, short: {name.replace('_', ' ')}", f"ablations/{name}", tasks=ATOMIC) for name in names]


def require_checkpoint(folder: Path, run: str) -> str:
    """A run's last checkpoint.

    Raises:
        ValueError: if it has none.
    """
    checkpoint = last_checkpoint(folder / run)
    if checkpoint is None:
        raise ValueError(f"{folder / run} has no checkpoint; `make train-tabletop` writes it, or give another folder.")
    return str(checkpoint)


def run_row(row: Row, folder: Path, output: Path, trials: int, workers: int) -> ResultRow:
    """Runs what is not in the output folder yet."""
    model = None if row.run is None else require_checkpoint(folder, row.run)
    place = output / "".join(letter if letter.isalnum() else "_" for letter in row.title)
    chosen = trials_of(select_tasks(row.tasks), trials)
    typer.echo(row.title)
    run_benchmark(
        partial(make_policy, row.kind, model, **row.options), chosen, place, workers=workers, show_progress=True
    )
    return ResultRow(place, row.title)


@app.command()
def main(
    folder: Annotated[Path, typer.Option(help="Of the training runs.")] = Path("outputs/tabletop"),
    output: Annotated[
        Path | None, typer.Option(help="Of the outcomes and the report; default: results in the runs' folder.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="At least so many per level.")] = TRIALS_PER_LEVEL,
    pictures: Annotated[int, typer.Option(min=1, help="That questions are asked about.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Run every comparison that isn't finished, and print the tables; called again, it goes on where it stopped."""
    with errors_on_stderr():
        output = output or folder / "results"
        answering = {title: require_checkpoint(folder, run) for title, run in STAGES.items()}
        rows = [run_row(row, folder, output, trials, workers) for row in (*ROWS, *ablation_rows(folder))]
        questions = question_rows(answering, pictures)
        write_report(rows, questions.text(), questions.record(), output)


def write_report(rows: Sequence[ResultRow], answers: str, answer_record: dict[str, Any], output: Path) -> None:
    """`report.md` and, for programs, `report.json`; the former is also printed."""
    text = f"{report_text(rows)}\n\n{answers}"
    record = {"rows": [row.record() for row in rows], "answers": answer_record["rates"]}
    (output / "report.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "report.md").write_text(text + "\n", encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    app()
