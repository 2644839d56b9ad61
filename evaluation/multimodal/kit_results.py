"""Scores of Table 1's benchmarks from the kits' result files: VLMEvalKit's status.json, lmms-eval's *_results.json."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instructvla.evaluation.multimodal.benchmarks import BENCHMARKS, Score

FILE_PATTERNS = ("status.json", "*_results.json")


@dataclass
class KitRow:
    """What one kit measured of one model.

    Args:
        title: model and kit.
        scores: title of the benchmark → score in the paper's unit.
        partial: benchmarks of which only some questions were asked.
        failures: title of the benchmark → why the kit could not measure it.
    """

    title: str
    scores: dict[str, float] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, other: "KitRow") -> None:
        """Takes another file's results of the same model and kit.

        Raises:
            ValueError: another score of a benchmark that is here already.
        """
        for benchmark, score in other.scores.items():
            if self.scores.setdefault(benchmark, score) != score:
                raise ValueError(
                    f"{self.title} has two scores of {benchmark}: {self.scores[benchmark]:g} and {score:g}. "
                    "Give the result files of one run."
                )
        self.partial |= other.partial
        self.failures |= other.failures


def kit_rows(places: Iterable[Path]) -> list[KitRow]:
    """One row for each model and kit.

    Args:
        places: result files, or folders that hold some at any depth.

    Raises:
        ValueError: no result file, one that is none, or two scores of one benchmark.
    """
    rows: dict[str, KitRow] = {}
    for file in dict.fromkeys(file.resolve() for place in places for file in result_files(place)):
        row = read_row(file)
        rows.setdefault(row.title, KitRow(row.title)).add(row)
    return list(rows.values())


def result_files(place: Path) -> list[Path]:
    """The file itself, or the result files in a folder."""
    if place.is_file():
        return [place]
    found = sorted(file for pattern in FILE_PATTERNS for file in place.rglob(pattern))
    if not found:
        raise ValueError(
            f"{place} holds no results. Give VLMEvalKit's --work-dir or lmms-eval's --output_path, or a file in it "
            f"({' or '.join(FILE_PATTERNS)})."
        )
    return found


def read_row(file: Path) -> KitRow:
    """The results in one file.

    Raises:
        ValueError: the file is of neither kit.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if isinstance(record, dict) and isinstance(record.get("datasets"), dict):
        return vlmevalkit_row(record)
    if isinstance(record, dict) and isinstance(record.get("results"), dict):
        return lmms_eval_row(record)
    raise ValueError(f"{file} is no result file of VLMEvalKit (status.json) or lmms-eval (*_results.json).")


def vlmevalkit_row(record: Mapping[str, Any]) -> KitRow:
    """From a status.json, which has the metrics of each data set, or the error that stopped it."""
    row = KitRow(f"{record['model_name']}, VLMEvalKit")
    is_limited = "--limit" in record.get("argv", [])
    for benchmark in BENCHMARKS:
        status = record["datasets"].get(benchmark.vlmevalkit.name, {})
        if metrics := status.get("metrics"):
            row.scores[benchmark.title] = score_of(benchmark.vlmevalkit, metrics)
            row.partial |= {benchmark.title} if is_limited else set()
        elif error := status.get("error_message"):
            row.failures[benchmark.title] = error
    return row


def lmms_eval_row(record: Mapping[str, Any]) -> KitRow:
    """From a results file, which has the metrics of each task and how many of its questions were asked."""
    row = KitRow(f"{Path(record['model_name']).name}, lmms-eval")
    for benchmark in BENCHMARKS:
        score = benchmark.lmms_eval
        if score is None or score.name not in record["results"]:
            continue
        row.scores[benchmark.title] = score_of(score, record["results"][score.name])
        samples = record.get("n-samples", {}).get(score.name, {})
        if samples.get("effective") != samples.get("original"):
            row.partial.add(benchmark.title)
    return row


def score_of(score: Score, metrics: Mapping[str, Any]) -> float:
    """The score in the paper's unit.

    Raises:
        ValueError: a metric that is missing or is there twice; those that are there are listed.
    """
    return score.factor * sum(metric(metrics, pattern, score.name) for pattern in score.metrics) / len(score.metrics)


def metric(metrics: Mapping[str, Any], pattern: str, name: str) -> float:
    """The only metric whose name fits the pattern."""
    fits: Callable[[str], re.Match | None] = re.compile(pattern).fullmatch
    values = [value for key, value in metrics.items() if fits(key)]
    if len(values) != 1 or not isinstance(values[0], int | float):
        raise ValueError(f"{name} should have one number named {pattern}, but has {dict(metrics)}.")
    return values[0]
