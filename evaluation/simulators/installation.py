"""`instructvla install-simulator NAME`: a virtual environment with a benchmark's simulator, and where it is found."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.simulators.benchmark_definition import Benchmark, Installation, Source

FOLDER_VARIABLE = "INSTRUCTVLA_SIMULATORS"
DEFAULT_FOLDER = Path("outputs/simulators")
OURS = ("msgpack>=1.0.5",)  # what this package needs in a simulator's process

app = typer.Typer(add_completion=False)


def simulators_folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE, DEFAULT_FOLDER))


def simulator_python(benchmark: Benchmark) -> Path:
    """Interpreter of a benchmark's simulator.

    Raises:
        ValueError: it isn't installed, or a variable that names its assets is missing.
    """
    for variable, what in benchmark.needs.items():
        if not os.environ.get(variable):
            raise ValueError(f"{benchmark.title} needs {what}; name it with the environment variable {variable}.")
    if benchmark.installation is None:
        return Path(sys.executable)
    python = simulators_folder() / benchmark.name / "bin" / "python"
    if not python.exists():
        raise ValueError(
            f"the simulator of {benchmark.title} is not at {python.parents[1]}; `instructvla install-simulator "
            f"{benchmark.name}` puts it there, and {FOLDER_VARIABLE} names another folder of simulators."
        )
    return python.absolute()


def install_commands(
    installation: Installation, folder: Path, package: Path | str, sources: Mapping[str, str]
) -> list[list[str]]:
    """What `pip` is called with, one after the other.

    Args:
        folder: of the virtual environment.
        package: this package's project folder or requirement.
        sources: name of a source → folder or URL to take it from instead of its repository.

    Raises:
        ValueError: a source that the simulator doesn't have.
    """
    known = {source.name: source for source in installation.sources}
    if unknown := [name for name in sources if name not in known]:
        raise ValueError(f"there is no source {unknown[0]!r}; there are {', '.join(known) or 'none'}.")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    commands = [[*pip, *installation.requirements, *OURS]]
    if installation.without_dependencies:
        commands.append([*pip, "--no-deps", *installation.without_dependencies])
    for name, source in known.items():
        commands.append([*pip, "--no-deps", "--no-build-isolation", sources.get(name) or repository(source)])
    commands.append([*pip, "--no-deps", str(package)])
    return commands


def repository(source: Source) -> str:
    """As `pip` takes it."""
    return f"{source.name} @ git+{source.url}@{source.commit}"


def install(benchmark: Benchmark, python: str, package: Path | str, sources: Mapping[str, str]) -> Path:
    """Makes the virtual environment; called again after an interruption it goes on.

    Returns:
        Its folder.

    Raises:
        ValueError: the benchmark needs no environment of its own or another Python, or a step failed.
    """
    if benchmark.installation is None:
        raise ValueError(f"{benchmark.title} runs in this environment; it needs no other.")
    wanted = benchmark.installation.python
    if wanted is not None and (found := python_version(python)) != wanted:
        raise ValueError(
            f"{benchmark.title} needs Python {wanted}, {python} is {found}; give one: --python python{wanted}."
        )
    folder = simulators_folder() / benchmark.name
    commands = install_commands(benchmark.installation, folder, package, sources)
    for command in [[python, "-m", "venv", str(folder)], *commands]:
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"{' '.join(command)} failed ({error}); what it printed says why.") from error
    return folder


def python_version(python: str) -> str:
    """As in 3.11.

    Raises:
        ValueError: no such interpreter.
    """
    code = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"the interpreter {python} can't be started ({error}); name another with --python.") from error


def parse_sources(given: Sequence[str]) -> dict[str, str]:
    """NAME=FOLDER each, as a mapping."""
    pairs = [one.partition("=") for one in given]
    if wrong := [one for one, (_, equals, place) in zip(given, pairs, strict=True) if not (equals and place)]:
        raise ValueError(f"--source {wrong[0]} must be NAME=FOLDER.")
    return {name: place for name, _, place in pairs}


def project_folder() -> Path | str:
    """Where this package comes from: its project, if it is installed from one, else its version on the registry."""
    project = Path(__file__).parents[2]
    if (project / "pyproject.toml").is_file():
        return project
    from importlib.metadata import version

    return f"instructvla=={version('instructvla')}"


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="Of the benchmark.")],
    python: Annotated[str, typer.Option(help="Interpreter to make the environment with.")] = sys.executable,
    source: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER: take a source from there.")] = None,
) -> None:
    """Install a benchmark's simulator in a virtual environment of its own."""
    from instructvla.evaluation.benchmarks import find_benchmark

    with errors_on_stderr():
        benchmark = find_benchmark(name)
        folder = install(benchmark, python, project_folder(), parse_sources(source or ()))
        typer.echo(f"{benchmark.title}: {folder}")
        if benchmark.installation.libraries:
            typer.echo(f"it also needs the system's {', '.join(benchmark.installation.libraries)}")


if __name__ == "__main__":
    app()
