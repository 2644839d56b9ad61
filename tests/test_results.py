"""The report of all comparisons: rows are run once, and everything lands in one text and one record."""

import json

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop import results
from instructvla.evaluation.tabletop.results import ROWS, Row, app
from instructvla.training.trainer import TRAINER_STATE
from tests.tabletop_policies import APPLE, tabletop_model

SHORT = ["--trials", "1", "--pictures", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    model = tabletop_model()
    for run in ("stage0", "stage1", "stage2", "ablations/no_film", "ablations/reference"):
        model.save_pretrained(folder / run / "checkpoint-1")
        (folder / run / "checkpoint-1" / TRAINER_STATE).write_text('{"global_step": 1}')
    return folder


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), *SHORT])


def test_every_row_is_run_once_and_reported(runs, tmp_path, monkeypatch):
    rows = (Row("floor", kind="random", tasks=(APPLE,)), Row("model", "stage2", tasks=(APPLE,), options={"ratio": 2}))
    monkeypatch.setattr(results, "ROWS", rows)
    monkeypatch.setattr(results, "ATOMIC", (APPLE,))
    first = call("--folder", runs, "--output", tmp_path)
    assert first.exit_code == 0, first.output
    text = (tmp_path / "report.md").read_text()
    assert text.strip() in first.stdout
    titles = [
        "| floor |",
        "| model |",
        "| stage 1, short: reference |",
        "| stage 1, short: no film |",
        "| after stage 1 |",
    ]
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    record = json.loads((tmp_path / "report.json").read_text())
    assert [row["title"] for row in record["rows"]][:2] == ["floor", "model"]
    assert record["rows"][1]["settings"]["ratio"] == 2 and "after stage 2" in record["answers"]
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    assert call("--folder", runs, "--output", tmp_path).exit_code == 0
    assert written == {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}


def test_the_papers_comparisons_are_among_the_rows():
    options = [(row.run, row.options.get("think"), row.options.get("ratio", 1)) for row in ROWS if row.run]
    assert options == [("stage1", None, 1), ("stage2", True, 1), ("stage2", False, 1), ("stage2", True, 2)]


def test_a_folder_without_runs_is_refused(tmp_path):
    result = call("--folder", tmp_path)
    assert result.exit_code == 2 and "has no checkpoint; `make train-tabletop` writes it" in result.stderr
    assert not list(tmp_path.iterdir())
