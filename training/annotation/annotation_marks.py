"""`instructvla annotation-marks`: success rates and kinds of errors from people's marks on a sample sheet."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.training.annotation.mark_rates import FORMAT, Mark, agreement_lines, errors_table, pooled, rates_table

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class MarksFile:
    """What a sheet has saved.

    Args:
        sheet: its fingerprint.
        marker: who has marked.
        samples: how many the sheet shows.
        marks: in the order of the sheet.
    """

    sheet: str
    marker: str
    samples: int
    marks: list[Mark]

    @classmethod
    def read(cls, path: Path) -> "MarksFile":
        """
        Raises:
            ValueError: the file is missing, none of a sheet's, or has a mark that can't be.
        """
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} can't be read ({error}); give a file that a sample sheet has saved.") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{path} is no file of marks; give one that a sample sheet has saved.")
        try:
            marks = [Mark.of_record(record) for record in content["marks"]]
            return cls(str(content["sheet"]), content["marker"] or path.stem, int(content["samples"]), marks)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path}: {error!s}; save it from its sheet again.") from error


def marks_report(files: Sequence[MarksFile]) -> str:
    """Rates and errors of all markers together, and how far they agree.

    Raises:
        ValueError: files of different sheets, or two of one marker, or not one mark.
    """
    markers = {file.marker: file.marks for file in files}
    if len({file.sheet for file in files}) > 1:
        raise ValueError("the files are of different sheets, whose marks can't be compared; report each alone.")
    if len(markers) < len(files):
        raise ValueError("two files are of the same marker; give another name on the sheet, or only the later file.")
    marks = pooled(markers.values())
    if not marks:
        raise ValueError("not one entry is marked yet.")
    marked = {mark.episode for mark in marks}
    lines = [f"{len(marked)} of {files[0].samples} samples marked by {', '.join(markers)}; intervals of 95 %"]
    if len(files) > 1:
        lines += ["an entry's score is the mean of its marks", *agreement_lines(markers)]
    return "\n\n".join(["\n".join(lines), rates_table(marks), errors_table(marks)])


@app.command()
def main(
    marks: Annotated[list[Path], typer.Argument(help="Files that a sample sheet has saved, one per marker.")],
) -> None:
    """Print success rates, kinds of errors, and the agreement of several markers."""
    with errors_on_stderr():
        typer.echo(marks_report([MarksFile.read(path) for path in marks]))


if __name__ == "__main__":
    app()
