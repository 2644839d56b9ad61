"""`instructvla compare A B`: two runs' rates on the same trials, and whether their difference is more than noise."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.ledger import Ledger
from instructvla.evaluation.paired_comparison import PairedComparison, compare
from instructvla.plain_files import check_output_file

CAPTION = (
    "95 % intervals (Wilson) in brackets; +A and +B: trials that A or B alone did; p of McNemar's exact test; of many "
    "groups some differ by chance."
)

app = typer.Typer(add_completion=False)


def setting_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What the two runs don't have in common, a line each."""
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return [f"{name}: {first.get(name)!r} | {second.get(name)!r}" for name in names]


def comparison_lines(found: Mapping[str, PairedComparison]) -> list[str]:
    """A row per group."""
    width = max(len(group) for group in found)
    lines = [f"{'':<{width}}  {'A':<24}{'B':<24}{'+A':>5}{'+B':>5}{'p':>8}  verdict"]
    for group, one in found.items():
        rates = f"{one.first!s:<24}{one.second!s:<24}"
        lines.append(
            f"{group:<{width}}  {rates}{one.only_first:>5}{one.only_second:>5}{one.p_value:>8.3f}  {one.verdict}"
        )
    return lines


def left_out(first: Ledger, second: Ledger, compared: int) -> list[str]:
    """How many trials only one run has a verdict on."""
    counts = [sum(one.success is not None for one in ledger.outcomes.values()) for ledger in (first, second)]
    return [
        f"{count - compared} of {name}'s {count} trials have no counterpart and don't count"
        for name, count in zip("AB", counts, strict=True)
        if count > compared
    ]


@app.command()
def main(
    first: Annotated[Path, typer.Argument(help="A: folder of a run.")],
    second: Annotated[Path, typer.Argument(help="B: folder of another run of the same benchmark.")],
    output: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Compare two runs trial by trial."""
    with errors_on_stderr():
        check_output_file(output)
        ledgers = [Ledger.read(folder) for folder in (first, second)]
        benchmarks = [ledger.settings.get("benchmark") for ledger in ledgers]
        if benchmarks[0] != benchmarks[1]:
            raise ValueError(
                f"{first} is of {benchmarks[0]!r} and {second} of {benchmarks[1]!r}; compare like with like."
            )
        found = compare(*(ledger.outcomes for ledger in ledgers))
        differences = setting_differences(*(ledger.settings for ledger in ledgers))
        lines = [
            f"A {first}",
            f"B {second}",
            "settings, A | B:",
            *(f"  {line}" for line in differences or ["the same"]),
        ]
        lines += ["", *comparison_lines(found), CAPTION, *left_out(*ledgers, found["all"].first.trials)]
        typer.echo("\n".join(lines))
        if output is not None:
            groups = {group: one.record() for group, one in found.items()}
            output.write_text(json.dumps({"groups": groups, "settings": differences}, indent=1) + "\n")


if __name__ == "__main__":
    app()
