"""`instructvla multimodal-report`: the kits' results beside the paper's, laid out as Table 1."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.multimodal.benchmarks import BENCHMARKS, PAPER_SCORES, Benchmark
from instructvla.evaluation.multimodal.kit_results import KitRow, kit_rows
from instructvla.model_card import markdown_table

NOT_RUN, FAILED, PARTIAL = "–", "failed", "*"
TITLES = [benchmark.title for benchmark in BENCHMARKS]
LEGEND = (
    "MME P: perception, of 2000; OCRBench: of 1000; all others in %. "
    f"{NOT_RUN}: not run. {PARTIAL}: only some of the questions."
)

app = typer.Typer(add_completion=False)


def report_text(rows: Sequence[KitRow]) -> str:
    """As Markdown: the paper's rows, the measured ones, and what is missing."""
    paper = [KitRow(f"{name} (paper)", dict(zip(TITLES, scores, strict=True))) for name, scores in PAPER_SCORES.items()]
    lines = [[row.title, *(cell(row, benchmark) for benchmark in BENCHMARKS)] for row in [*paper, *rows]]
    table = markdown_table(["", *TITLES], lines)
    notes = [note for row in rows for note in missing(row)]
    return "\n\n".join([table, LEGEND, *notes])


def cell(row: KitRow, benchmark: Benchmark) -> str:
    """A benchmark's score, or the mark of one that is missing."""
    title = benchmark.title
    if title in row.scores:
        return f"{row.scores[title]:.{benchmark.digits}f}" + (PARTIAL if title in row.partial else "")
    return FAILED if title in row.failures else NOT_RUN


def missing(row: KitRow) -> list[str]:
    """What a row lacks, and why where the kit tells."""
    failed: Mapping[str, str] = {name: why for name, why in row.failures.items() if name not in row.scores}
    absent = [title for title in TITLES if title not in row.scores and title not in failed]
    notes = [f"{row.title}, not run: {', '.join(absent)}."] if absent else []
    return notes + [f"{row.title}, {name} failed: {' '.join(why.split())}" for name, why in failed.items()]


@app.command()
def main(
    results: Annotated[
        list[Path] | None, typer.Argument(help="Result files or folders of VLMEvalKit and lmms-eval.")
    ] = None,
) -> None:
    """Table 1 of the paper, with rows for what VLMEvalKit and lmms-eval measured."""
    with errors_on_stderr():
        text = report_text(kit_rows(results or []))
    typer.echo(text)


if __name__ == "__main__":
    app()
