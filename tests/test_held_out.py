"""Claims about what a run measures on held-out data."""

import json

import pytest

from instructvla.training.held_out import OpenLoopEvaluation, RetentionEvaluation
from instructvla.training.run_config import RetentionSettings
from tests.lively_experts import lively
from tests.reaching_episodes import write_chat
from tests.training_inputs import nano_for, reaching_datasets


def test_errors_are_over_all_held_out_episodes_and_each_dataset_gets_a_plot(tmp_path):
    datasets, _ = reaching_datasets(tmp_path)
    model = nano_for(datasets)
    evaluation = OpenLoopEvaluation(
        datasets.held_out, model.processor, horizon=16, chunks=2, batch_size=3, plots=tmp_path / "plots"
    )
    metrics = evaluation(model, 7)
    assert {"eval_action_error", "eval_action_error/x", "eval_action_mae/gripper"} <= metrics.keys()
    assert (tmp_path / "plots" / "reaching_step_7.png").is_file()
    assert len(evaluation.probes["reaching"].chunks) == 4
    assert evaluation(model, 8) == pytest.approx(metrics)


def test_a_model_that_the_episodes_do_not_fit_is_refused_before_training(tmp_path):
    datasets, _ = reaching_datasets(tmp_path)
    model = lively(1)  # with statistics of another dataset
    with pytest.raises(ValueError, match="reaching"):
        OpenLoopEvaluation(datasets.held_out, model.processor, horizon=16, chunks=1, batch_size=1, plots=tmp_path)


def test_retention_is_measured_against_the_model_without_adapters(tmp_path):
    file = write_chat(tmp_path / "chat.json", 4)
    model = lively(2)
    evaluation = RetentionEvaluation(
        RetentionSettings(str(file), records=4, answers=1), model.processor, max_length=256, batch_size=2
    )
    metrics = evaluation(model, 0)
    assert metrics["eval_retention/text_loss"] != metrics["eval_retention/base_text_loss"]
    assert json.loads(json.dumps(metrics)) == metrics
