"""The released folder: a model that loads, with a card that holds the runs, the results and how it was made."""

import json

import pytest
from transformers import AutoModel
from typer.testing import CliRunner

from instructvla.evaluation.tabletop.failures import Cause
from instructvla.training.release_tabletop import CURVES, STAGES, app
from instructvla.training.trainer import TRAINER_STATE
from tests.tabletop_policies import tabletop_model

RATE = {"successes": 9, "trials": 10, "rate": 0.9, "low": 0.596, "high": 0.982}
RESULTS = {
    "rows": [
        {"title": "Expert", "settings": {"think": False}, "rates": {"atomic": RATE}, "causes": {}},
        {
            "title": "Generalist",
            "settings": {"think": True},
            "rates": {"atomic": RATE, "situated_reasoning": RATE | {"successes": 5, "rate": 0.5}},
            "causes": {cause: 10 - place for place, cause in enumerate(Cause)},
        },
    ],
    "answers": {"after stage 0": {"all": RATE}},
}


@pytest.fixture
def runs(tmp_path):
    model = tabletop_model()
    for stage in STAGES:
        folder = tmp_path / "runs" / stage / "checkpoint-20"
        settings = {"title": "Settings", "header": ["setting", "value"], "rows": [["of", f"the {stage}"]]}
        model.training_report = {"tables": [settings, settings | {"title": "Data"}]}
        model.save_pretrained(folder)
        log = [{"step": step, "lm_loss": 1.0 / step, "flow_loss": 2.0 / step} for step in (10, 20)]
        (folder / TRAINER_STATE).write_text(json.dumps({"global_step": 20, "log_history": log}))
    (tmp_path / "runs" / "results").mkdir()
    (tmp_path / "runs" / "results" / "report.json").write_text(json.dumps(RESULTS))
    return tmp_path / "runs"


def release(runs, output):
    return CliRunner().invoke(app, ["--folder", str(runs), "--output", str(output)])


def test_the_folder_loads_and_its_card_tells_everything(runs, tmp_path):
    result = release(runs, tmp_path / "tiny")
    assert result.exit_code == 0, result.output
    model = AutoModel.from_pretrained(tmp_path / "tiny", trust_remote_code=True)
    assert model.config.horizon == 8
    assert (tmp_path / "tiny" / CURVES).read_bytes()[:4] == b"\x89PNG"
    card = (tmp_path / "tiny" / "README.md").read_text()
    for text in (
        "| Generalist | 90.0 [59.6–98.2] (10) | – | 50.0 [59.6–98.2] (10) |",
        "| after stage 0 | 90.0 [59.6–98.2] (10) |",
        "make train-tabletop",
        f"]({CURVES})",
        "| version of torch |",
        "### Stage 0: Settings",
        "### Stage 2: Data",
    ):
        assert text in card
    assert "### Stage 0: Data" not in card
    causes = [cause for cause in Cause if f"| {cause} | " in card]
    assert causes == list(Cause)[:5]


def test_unfinished_work_is_named(runs, tmp_path):
    (runs / "results" / "report.json").unlink()
    result = release(runs, tmp_path / "tiny")
    assert result.exit_code == 2 and "`make tabletop-results` writes them" in result.stderr
    (runs / "stage1" / "checkpoint-20" / TRAINER_STATE).unlink()
    result = release(runs, tmp_path / "tiny")
    assert result.exit_code == 2 and "stage1 has no checkpoint" in result.stderr
    assert not (tmp_path / "tiny").exists()
