"""What a command says when its user can put something right."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from safetensors import SafetensorError


@contextmanager
def errors_on_stderr() -> Iterator[None]:
    """Bad input (`ValueError`) or a file that can't be read or written becomes one line on stderr and exit code 2."""
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


@contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """A disk that is full or can't be written becomes a `ValueError` that names the folder and the remedy."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"--output {output} can't be written: {error}. Nothing was left there; free some space "
            "or give another folder."
        ) from error
