"""`instructvla tabletop-report`: several runs' results as one table, in Markdown and JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.ledger import Ledger
from instructvla.evaluation.tabletop.benchmark import (
    LEVEL_NAMES,
    TRIALS_PER_LEVEL,
    groups_of,
    rates,
)
from instructvla.evaluation.tabletop.phrases import Level
from instructvla.model_card import markdown_table

COMPARED = ("tasks_sha256", "mujoco", "max_steps")  # settings in which the rows of a table agree
CAPTION = "Success in %, 95 % intervals (Wilson) in brackets, then the number of trials."
MISSING = "–"

app = typer.Typer(add_completion=False)


class ResultRow:
    """One run's rates.

    Args:
        folder: that `instructvla tabletop --output` wrote.
        title: of the row; default: what the settings say.

    Raises:
        ValueError: for a folder without results.
    """

    def __init__(self, folder: Path, title: str | None = None):
        ledger = Ledger.read(folder)
        self.settings = ledger.settings
        self.title = title or described(self.settings)
        outcomes = list(ledger.outcomes.values())
        if not outcomes:
            raise ValueError(f"{folder} has no outcomes yet; run `instructvla tabletop` with --output {folder} on.")
        self.rates = rates(outcomes)
        self.causes = Counter(outcome.cause for outcome in outcomes if outcome.cause)

    def cells(self, columns: Sequence[str]) -> list[str]:
        shown = (self.rates.get(column) for column in columns)
        return [MISSING if rate is None else f"{rate} ({rate.trials})" for rate in shown]

    def is_small(self) -> bool:
        """Whether a level has fewer trials than a report should rest on."""
        return any(rate.trials < TRIALS_PER_LEVEL for name, rate in self.rates.items() if name in list(Level))

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "title": self.title,
            "settings": self.settings,
            "rates": {name: rate.record() for name, rate in self.rates.items()},
            "causes": dict(self.causes.most_common()),
        }


def described(settings: Mapping[str, Any]) -> str:
    """A row's title from its settings."""
    if settings["policy"] != "model":
        return {"expert": "scripted expert", "random": "random actions"}.get(settings["policy"], settings["policy"])
    words = [Path(settings["name"]).name, "thinking" if settings["think"] else "not thinking"]
    if settings["ratio"] != 1:
        words.append(f"1:{settings['ratio']}")
    return ", ".join(words)


def read_row(argument: str) -> ResultRow:
    """The row of a FOLDER, or of a TITLE=FOLDER."""
    title, equals, folder = argument.rpartition("=")
    return ResultRow(Path(argument)) if not equals or Path(argument).is_dir() else ResultRow(Path(folder), title)


def check_comparable(rows: Sequence[ResultRow]) -> None:
    """Refuses rows of another benchmark, or with another number of steps (ValueError)."""
    first = rows[0]
    for row in rows[1:]:
        for name in COMPARED:
            if row.settings.get(name) != first.settings.get(name):
                raise ValueError(
                    f"{row.title} can't stand beside {first.title}: {name} is {row.settings.get(name)!r} there and "
                    f"{first.settings.get(name)!r} here; run one of them again."
                )


def rates_table(rows: Sequence[ResultRow], by_category: bool = False) -> str:
    """Rates in %, their 95 % intervals and, in brackets, numbers of trials."""
    columns = {level: name for name, level in LEVEL_NAMES.items()}
    if by_category:
        columns = {name: name for level in Level for name in groups_of(level)}
    columns = {key: name for key, name in columns.items() if any(key in row.rates for row in rows)}
    return markdown_table(["", *columns.values()], [[row.title, *row.cells(list(columns))] for row in rows])


def report_text(rows: Sequence[ResultRow]) -> str:
    """Success by level, by category, and why trials failed.

    Raises:
        ValueError: rows of different benchmarks.
    """
    check_comparable(rows)
    tables = [rates_table(rows), rates_table(rows, by_category=True)]
    tables += [causes_table(rows)] if any(row.causes for row in rows) else []
    return "\n\n".join([CAPTION, *tables])


def causes_table(rows: Sequence[ResultRow]) -> str:
    """How many trials of each run failed for which cause, the most frequent first."""
    together = sum((row.causes for row in rows), Counter())
    by_frequency = sorted(together, key=lambda cause: (-together[cause], cause))
    lines = [[cause, *(row.causes[cause] for row in rows)] for cause in by_frequency]
    return markdown_table(["failures", *(row.title for row in rows)], lines)


@app.command()
def main(
    results: Annotated[list[str], typer.Argument(help="FOLDER or TITLE=FOLDER, one per row.")],
    output: Annotated[
        Path | None, typer.Option(help="Of the table: table.md gets table.json beside it; default: print only.")
    ] = None,
) -> None:
    """Tables of several runs: success by level, by category, and why trials failed."""
    with errors_on_stderr():
        if output is not None and output.suffix != ".md":
            raise ValueError(f"--output {output} must end in .md, such as results.md.")
        rows = [read_row(argument) for argument in results]
        text = report_text(rows)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text + "\n", encoding="utf-8")
            records = json.dumps([row.record() for row in rows], indent=1, ensure_ascii=False)
            output.with_suffix(".json").write_text(records + "\n", encoding="utf-8")
    typer.echo(text)
    for row in rows:
        if row.is_small():
            typer.echo(f"note: {row.title} has levels of fewer than {TRIALS_PER_LEVEL} trials.", err=True)


if __name__ == "__main__":
    app()
