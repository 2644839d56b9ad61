"""`instructvla load-test URL|MODEL`: latency and throughput of a policy server, and whether bad clients disturb it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from instructvla.argument_checks import parse_counts
from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.served_process import served
from instructvla.plain_files import check_output_file

if TYPE_CHECKING:  # websockets is an extra
    from instructvla.evaluation.load_disturbance import Disturbance
    from instructvla.evaluation.load_measurement import ClientLoad

MAX_CLIENTS = 256

app = typer.Typer(add_completion=False)


def load_table(loads: "Sequence[ClientLoad]") -> str:
    """One line per number of clients."""
    lines = [f"{'clients':>7}{'answers':>9}{'refused':>9}{'p50, ms':>10}{'p99, ms':>10}{'answers/s':>11}{'batch':>7}"]
    for load in loads:
        lines.append(
            f"{load.clients:>7}{load.answers:>9}{load.refused:>9}{load.p50_ms:>10.1f}{load.p99_ms:>10.1f}"
            f"{load.throughput:>11.2f}{load.mean_batch:>7.2f}"
        )
    return "\n".join([*lines, *(reason for load in loads for reason in load.reasons)])


def disturbance_report(found: "Disturbance", tolerance: float) -> str:
    """What was tried, and what the good clients noticed of it."""
    attacks = "; ".join(f"{name}: {times} times" for name, times in found.attacks.items())
    return "\n".join(
        [
            f"bad clients   {attacks}",
            f"good clients  {found.clients}, {found.answers} answers in both runs, {len(found.failures)} failures",
            f"difference    {found.largest_difference:.3g} at most in any action (tolerance {tolerance:g})",
            f"p99           {found.p99_alone_ms:.1f} ms alone, {found.p99_disturbed_ms:.1f} ms beside bad clients",
            *found.failures,
            "AFFECTED" if found.affected(tolerance) else "not affected",
        ]
    )


@app.command()
def main(
    target: Annotated[str, typer.Argument(help="ws://HOST:PORT, or a model to serve meanwhile, e.g. nano.")],
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,2,4,8,16,32",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each number of clients.")] = 10.0,
    think: Annotated[bool | None, typer.Option(help="Speak in each request, or never; default: once.")] = None,
    think_in_background: Annotated[
        bool, typer.Option(help="Renew the words all the time, beside the actions.")
    ] = False,
    reuse_latent: Annotated[bool, typer.Option(help="Run only the action expert after the first answer.")] = False,
    disturb: Annotated[bool, typer.Option(help="Compare answers with and without bad clients instead.")] = False,
    requests: Annotated[int, typer.Option(min=1, help="Of each good client, with --disturb.")] = 10,
    tolerance: Annotated[float, typer.Option(help="Of actions, with --disturb; batches round differently.")] = 1e-3,
    token: Annotated[str | None, typer.Option(envvar="INSTRUCTVLA_TOKEN", help="The server's.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Measure a policy server; with --disturb, exit code 1 says that bad clients affected good ones."""
    with errors_on_stderr():
        try:
            from instructvla.evaluation.load_disturbance import measure_disturbance
            from instructvla.evaluation.load_measurement import measure_load
            from instructvla.evaluation.policy_messages import PolicyError
        except ImportError as error:
            raise ValueError(f"the load test needs {error.name}: pip install 'instructvla[serve]'") from error
        numbers = parse_counts("--clients", clients, MAX_CLIENTS)
        check_output_file(output)
        if sum([think is not None, think_in_background, reuse_latent]) > 1:
            raise ValueError("--think, --think-in-background and --reuse-latent exclude each other; give one of them")
        given: dict[str, Any] = {"think": "background" if think_in_background else think}
        given["reuse_latent"] = reuse_latent or None
        options = {name: value for name, value in given.items() if value is not None}
        affected = False
        try:
            with served(target) as url:
                if disturb:
                    found = measure_disturbance(url, max(numbers), requests, token)
                    affected = found.affected(tolerance)
                    rows, text = [found.row()], disturbance_report(found, tolerance)
                else:
                    loads = [measure_load(url, number, seconds, token, options) for number in numbers]
                    rows, text = [load.row() for load in loads], load_table(loads)
        except PolicyError as error:
            raise ValueError(str(error)) from error
        typer.echo(text)
        if output is not None:
            output.write_text(json.dumps(rows, indent=2) + "\n")
    if affected:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
