"""Table 1 as a report: the paper's rows, the measured ones, and what was not run."""

import json

from typer.testing import CliRunner

from instructvla.evaluation.multimodal.benchmarks import BENCHMARKS
from instructvla.evaluation.multimodal.kit_results import KitRow
from instructvla.evaluation.multimodal.multimodal_report import app, report_text

MEASURED = KitRow("mine, lmms-eval", {"MMStar": 54.94, "OCRBench": 795.0}, {"MMStar"}, {"AI2D": "no\ndata"})


def cells(text: str, title: str) -> list[str]:
    """Those of the row with that title."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    return row.strip("| ").split(" | ")[1:]


def test_the_papers_rows_come_as_printed_there():
    expected = ["44.8", "47.5", "54.9", "1611.2", "795", "47.0", "76.6", "75.6", "84.4", "63.8", "78.1", "79.7", "64.4"]
    assert cells(report_text([]), "InstructVLA Generalist (paper)") == expected


def test_measured_scores_stand_in_their_columns_and_what_is_missing_is_marked():
    shown = dict(zip([one.title for one in BENCHMARKS], cells(report_text([MEASURED]), MEASURED.title), strict=True))
    assert (shown.pop("MMStar"), shown.pop("OCRBench"), shown.pop("AI2D")) == ("54.9*", "795", "failed")
    assert set(shown.values()) == {"–"}


def test_what_was_not_run_and_why_something_failed_is_told():
    text = report_text([MEASURED])
    assert "mine, lmms-eval, not run: MMMU Val, MM-Vet, MME P, HallB, MMB, TextVQA, DocVQA" in text
    assert "mine, lmms-eval, AI2D failed: no data" in text


def test_the_command_reads_result_files(tmp_path):
    record = {"results": {"mmstar": {"average,none": 0.5}}, "model_name": "nano"}
    (tmp_path / "1_results.json").write_text(json.dumps(record))
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == 0 and "50.0" in cells(result.stdout, "nano, lmms-eval")


def test_the_command_names_a_folder_without_results(tmp_path):
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert result.exit_code == 2 and "holds no results" in result.stderr
