"""Claims about the card of an evaluated model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.evaluation import card
from instructvla.evaluation.card import HOW, app, evaluation_section, fingerprints_of
from instructvla.evaluation.ledger import Ledger, Outcome
from tests.tabletop_policies import APPLE, THIRSTY, shared_model

OURS = frozenset({"abc"})


def tabletop_run(folder: Path, weights: str = "abc", **settings) -> Path:
    ledger = Ledger.open(folder, {"benchmark": "tabletop", "weights": weights, "think": True} | settings)
    ledger.add(Outcome(APPLE, 0, 1, "…", True, 9, groups=("atomic",)))
    ledger.add(Outcome(THIRSTY, 0, 2, "…", False, 80, groups=("situated_reasoning", "negation")))
    ledger.add(Outcome(THIRSTY, 1, 3, "…", None, 0, error="died", groups=("situated_reasoning", "negation")))
    return folder


def latency_file(path: Path) -> Path:
    row = {"setting": "action only", "p50_ms": 12.34, "p99_ms": 20.0, "hz": 80.0}
    path.write_text(json.dumps({"environment": {"weights": "abc", "device": "a CPU"}, "rows": [row]}))
    return path


def test_what_was_run_is_shown_with_its_settings_and_the_rest_is_marked(tmp_path):
    text = evaluation_section([tabletop_run(tmp_path / "run"), latency_file(tmp_path / "latency.json")], OURS)
    assert "### Tabletop-Instruct" in text and "| atomic | 1/1 | 100.0 % [20.7–100.0] |" in text
    assert "1 trials have no verdict" in text and "think True" in text and "weights abc" in text
    assert "| action only | 12.3 | 20.0 | 80.00 | 3.5 |" in text and "device a CPU" in text
    missing = text.rsplit("Not run: ", 1)[1]
    assert all(f"{kind} (`{HOW[kind]}`)" in missing for kind in ("simpler_env", "libero", "language", "multimodal"))
    assert "tabletop (" not in missing and "latency (" not in missing


def test_without_runs_everything_is_marked_as_not_run():
    assert all(kind in evaluation_section([], OURS) for kind in HOW)


def test_results_of_other_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is of the weights old, the card's model has abc; run it again"):
        evaluation_section([tabletop_run(tmp_path / "run", weights="old")], OURS)
    with pytest.raises(ValueError, match="there is no run"):
        evaluation_section([tmp_path / "nothing"], OURS)


def test_a_language_run_without_scores_is_not_finished(tmp_path):
    Ledger.open(tmp_path, {"benchmark": "language", "weights": "abc"})
    with pytest.raises(ValueError, match="has answers, but no scores yet"):
        evaluation_section([tmp_path], OURS)


def test_a_benchmark_of_one_s_own_is_shown_too(tmp_path):
    run = tabletop_run(tmp_path / "run", benchmark="tests.stand_in_benchmark", notes=["a point stands in"])
    text = evaluation_section([run], OURS)
    assert "### Points" in text and "Note: a point stands in." in text and "tabletop (" in text


def test_the_command_writes_the_card_beside_the_weights(tmp_path, monkeypatch):
    model = shared_model()
    monkeypatch.setattr(card, "load_model", lambda name: model)
    monkeypatch.setattr(model, "saved_training_report", lambda: None, raising=False)
    run = tabletop_run(tmp_path / "run", weights=next(iter(fingerprints_of(model))))
    result = CliRunner().invoke(app, [str(tmp_path), "--run", str(run)])
    assert result.exit_code == 0, result.output
    assert "| negation | 0/1 | 0.0 % [0.0–79.3] |" in (tmp_path / "README.md").read_text()
    result = CliRunner().invoke(app, ["some/model"])
    assert result.exit_code == 2 and "name one for the card with --output" in result.stderr


def test_a_run_with_a_system_two_has_a_table_of_its_own(tmp_path):
    helped = tabletop_run(tmp_path / "helped", system_two={"model": "strong-vlm", "prompt": "1"})
    text = evaluation_section([tabletop_run(tmp_path / "alone"), helped], OURS)
    assert "### Tabletop-Instruct\n" in text and "### Tabletop-Instruct + System 2 (strong-vlm)\n" in text
