"""Claims about `instructvla annotation-marks`."""

import json

import pytest
from typer.testing import CliRunner

from instructvla.training.annotation.annotation_marks import app
from instructvla.training.annotation.mark_rates import FORMAT

MARKS = [
    {"episode": 4, "entry": "sample", "score": 0.5, "error": "Reverse Temporal Order"},
    {"episode": 9, "entry": "sample", "score": 1, "error": None},
]


def written(path, marker: str = "Ada", **changes) -> str:
    content = {"format": FORMAT, "sheet": "f00d", "samples": 3, "marker": marker, "marks": MARKS, **changes}
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_rates_errors_and_agreement_are_printed(tmp_path):
    result = CliRunner().invoke(app, [written(tmp_path / "a.json"), written(tmp_path / "b.json", "Alan")])
    assert result.exit_code == 0
    assert "2 of 3 samples marked by Ada, Alan" in result.output
    assert "Cohen's kappa 1.00" in result.output
    assert "| whole samples | 2 | 75.0 %" in result.output and "| Reverse Temporal Order | 1 | 100.0 %" in result.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sheet": "beef"}, "of different sheets"),
        ({"marker": "Ada"}, "two files are of the same marker"),
        ({"format": "else"}, "is no file of marks"),
        ({"marks": [{"episode": 1, "entry": "sample", "score": 3}]}, "a score is 3"),
        ({"marks": None}, "save it from its sheet again"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, changes, message):
    second = written(tmp_path / "b.json", **{"marker": "Alan"} | changes)
    result = CliRunner().invoke(app, [written(tmp_path / "a.json"), second])
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output


def test_a_sheet_without_marks_has_no_rates(tmp_path):
    result = CliRunner().invoke(app, [written(tmp_path / "a.json", marks=[])])
    assert result.exit_code == 2 and "not one entry is marked yet" in result.output
