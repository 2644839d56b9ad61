"""What a command says when its user can put something right."""

from collections.abc import Iterator
from contextlib import contextmanager

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
