"""`instructvla card MODEL`: its model card with every evaluation table, from ledgers and result files alone."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.benchmark_table import benchmark_table
from instructvla.evaluation.benchmarks import MODULES, find_benchmark
from instructvla.evaluation.latency import PAPER_HZ, SETTINGS
from instructvla.evaluation.ledger import LEDGER, Ledger
from instructvla.evaluation.one_picture import load_model
from instructvla.evaluation.system_two import with_system_two
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from instructvla.model_card import markdown_table, write_model_card
from instructvla.weight_precision import FLOATS

LANGUAGE, MULTIMODAL, LATENCY = "language", "multimodal", "latency"
HOW: Mapping[str, str] = {
    **{name: f"instructvla evaluate {name}" for name in MODULES},
    LANGUAGE: "instructvla language",
    MULTIMODAL: "VLMEvalKit or lmms-eval",
    LATENCY: "instructvla latency",
}
"""What a card has a section for → what fills it."""

app = typer.Typer(add_completion=False)


def evaluation_section(runs: Sequence[Path], fingerprints: frozenset[str]) -> str:
    """The card's evaluation in Markdown: what was run, then what was not.

    Args:
        runs: folders with a ledger, JSON files of `instructvla latency`, result files or folders of the kits.
        fingerprints: of the card's model, one for each precision that it may have run in.

    Raises:
        ValueError: a run that is none, or is of other weights.
    """
    parts: dict[str, list[str]] = {}
    for run in runs:
        kind, text = run_text(run, fingerprints)
        parts.setdefault(kind, []).append(text)
    order = [*HOW, *(kind for kind in parts if kind not in HOW)]
    sections = [text for kind in order for text in parts.get(kind, ())]
    if missing := [f"{kind} (`{how}`)" for kind, how in HOW.items() if kind not in parts]:
        sections.append(f"Not run: {', '.join(missing)}.")
    return "\n\n".join(sections)


def run_text(run: Path, fingerprints: frozenset[str]) -> tuple[str, str]:
    """What a run is of, and its table with how it was obtained."""
    if (run / LEDGER).is_file():
        settings = json.loads((run / LEDGER).open(encoding="utf-8").readline())["settings"]
        check_weights(run, settings.get("weights"), fingerprints)
        kind = settings["benchmark"]
        return kind, language_text(run) if kind == LANGUAGE else benchmark_text(Ledger.read(run))
    record = json.loads(run.read_text(encoding="utf-8")) if run.suffix == ".json" and run.is_file() else {}
    if "environment" in record and "rows" in record:
        check_weights(run, record["environment"]["weights"], fingerprints)
        return LATENCY, latency_text(record)
    if not run.exists():
        raise ValueError(f"there is no run {run}; give folders of runs, or result files.")
    from instructvla.evaluation.multimodal.kit_results import kit_rows
    from instructvla.evaluation.multimodal.multimodal_report import report_text

    rows = kit_rows([run])
    names = ", ".join(row.title for row in rows)
    return MULTIMODAL, f"### Multimodal understanding\n\n{report_text(rows)}\n\nRows of {names}, as the kit names it."


def check_weights(run: Path, weights: str | None, fingerprints: frozenset[str]) -> None:
    if weights not in fingerprints:
        raise ValueError(
            f"{run} is of the weights {weights}, the card's model has {', '.join(sorted(fingerprints))}; run it again "
            "on this model, or leave it out."
        )


def benchmark_text(ledger: Ledger) -> str:
    """Rates as the benchmark lays them out, then the settings that they follow from."""
    settings, outcomes = ledger.settings, list(ledger.outcomes.values())
    benchmark = find_benchmark(settings["benchmark"])
    table = benchmark_table(benchmark, outcomes)
    helper = (settings.get("system_two") or {}).get("model")
    notes = [f"Note: {note}." for note in settings.get("notes", ())]
    if broken := sum(outcome.success is None for outcome in outcomes):
        notes.append(f"{broken} trials have no verdict, as their simulator or System 2 failed; they don't count.")
    return "\n\n".join([f"### {with_system_two(benchmark.title, helper)}", table, *notes, settings_line(settings)])


def settings_line(settings: Mapping[str, Any]) -> str:
    """How a run was obtained, on one line."""
    left_out = ("benchmark", "title", "notes", "name", "policy")
    shown = {name: value for name, value in settings.items() if name not in left_out and value is not None}
    return "Settings: " + ", ".join(f"{name} {_shown(value)}" for name, value in shown.items()) + "."


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {one}" for name, one in value.items()) + ")"
    return str(value)


def language_text(run: Path) -> str:
    """The tables of a finished language evaluation.

    Raises:
        ValueError: it isn't finished.
    """
    from instructvla.evaluation.metrics.language import RECORD
    from instructvla.evaluation.metrics.language_report import language_tables

    file = run / RECORD
    if not file.is_file():
        raise ValueError(f"{run} has answers, but no scores yet; the same `instructvla language` command goes on.")
    return f"### Language\n\n{language_tables(json.loads(file.read_text(encoding='utf-8')))}"


def latency_text(record: Mapping[str, Any]) -> str:
    """Table 14's rows with device and versions."""
    rows = [
        [row["setting"], f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}", f"{row['hz']:.2f}", PAPER_HZ[row["setting"]]]
        for row in record["rows"]
        if row["setting"] in SETTINGS
    ]
    about = {name: value for name, value in record["environment"].items() if name != "weights"}
    table = markdown_table(["", "p50, ms", "p99, ms", "Hz", "paper, A100, Hz"], rows)
    return f"### Time per action, without chunking\n\n{table}\n\n{settings_line(about)}"


def fingerprints_of(model: Any) -> frozenset[str]:
    """Of a model's weights in each type of floats that it may run in."""
    own = weights_fingerprint(model)
    return frozenset({own, *(weights_fingerprint(copy.deepcopy(model).to(dtype)) for dtype in FLOATS.values())})


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Folder or Hub repository of the checkpoint.")],
    run: Annotated[
        list[Path] | None, typer.Option(help="Folder of a run, or result file; repeatable; without: all is not run.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder that gets the card as README.md; default: the model's folder.")
    ] = None,
    repo_id: Annotated[str | None, typer.Option(help="Name that the card's example loads; default: MODEL.")] = None,
) -> None:
    """Write the model card; what no ledger holds is marked as not run."""
    with errors_on_stderr():
        folder = output or Path(model)
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; name one for the card with --output.")
        loaded = load_model(model)
        section = evaluation_section(run or (), fingerprints_of(loaded))
        write_model_card(loaded, folder, repo_id or model, section, loaded.saved_training_report())
        typer.echo(str(folder / "README.md"))


if __name__ == "__main__":
    app()
