"""The retention callback in a trainer: it stops a run that forgets and keeps the best checkpoint that did not."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerState, TrainingArguments

from instructvla.training.retention import RetentionGate
from instructvla.training.retention_callback import RetentionCallback

GATE = RetentionGate(max_loss_increase=0.1)


class Measured(Trainer):
    """A trainer of one number whose evaluations give what they are told, (action error, text loss) each."""

    def __init__(self, folder, evaluations, callback, **arguments):
        model = torch.nn.Linear(1, 1)
        steps = len(evaluations)
        arguments = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 100} | arguments
        args = TrainingArguments(str(folder), report_to="none", disable_tqdm=True, use_cpu=True, **arguments)
        data = [{"x": torch.ones(1)}] * 2
        super().__init__(model, args, train_dataset=data, eval_dataset=data, callbacks=[callback])
        self.evaluations = evaluations

    def compute_loss(self, model, inputs, **_):
        return model(inputs["x"]).square().mean()

    def evaluate(self, *_, **__):
        error, loss = self.evaluations[max(self.state.global_step - 1, 0)]
        metrics = {"eval_action_error": error, "eval_retention/text_loss": loss, "eval_retention/base_text_loss": 1.0}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def run(folder, evaluations, callback=None, **arguments) -> tuple[Measured, RetentionCallback]:
    callback = callback or RetentionCallback(GATE)
    trainer = Measured(folder, evaluations, callback, remove_unused_columns=False, **arguments)
    trainer.train()
    return trainer, callback


def saved(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("checkpoint-*")}


def test_the_run_stops_at_the_first_violation_and_the_best_before_it_is_kept(tmp_path):
    trainer, callback = run(tmp_path, [(0.5, 1.0), (0.3, 1.05), (0.4, 1.0), (0.1, 1.2), (0.05, 1.0)])
    assert trainer.state.global_step == 4
    assert callback.violation.startswith("the text loss is 1.2, +20.00% from the base model's 1")
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert trainer.state.best_metric == 0.3
    assert saved(tmp_path) >= {"checkpoint-1", "checkpoint-2"}
    assert "checkpoint-3" not in saved(tmp_path)  # neither the best nor due


def test_a_run_within_the_limits_goes_on_to_its_end(tmp_path):
    trainer, callback = run(tmp_path, [(0.5, 1.0), (0.6, 1.1), (0.4, 0.9)])
    assert (trainer.state.global_step, callback.violation) == (3, None)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")


def test_violations_before_the_grace_steps_are_no_end_and_no_best(tmp_path):
    trainer, callback = run(tmp_path, [(0.1, 2.0), (0.2, 2.0), (0.3, 1.0)], RetentionCallback(GATE, grace_steps=3))
    assert (trainer.state.global_step, callback.violation) == (3, None)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")


def test_an_evaluation_before_the_first_step_neither_stops_nor_saves(tmp_path):
    trainer, callback = run(tmp_path, [(0.1, 9.0)], RetentionCallback(GATE, grace_steps=2), eval_on_start=True)
    assert callback.violation is None
    assert "checkpoint-0" not in saved(tmp_path)


def test_the_best_survives_rotation_and_is_known_to_a_resumed_run(tmp_path):
    evaluations = [(0.3, 1.0), (0.4, 1.0), (0.5, 1.0), (0.4, 1.0), (0.2, 1.0)]
    first, _ = run(tmp_path, evaluations[:3], save_steps=1, save_total_limit=2)
    assert saved(tmp_path) == {"checkpoint-1", "checkpoint-3"}
    state = TrainerState.load_from_json(str(tmp_path / "checkpoint-3" / "trainer_state.json"))
    assert (state.best_metric, state.best_model_checkpoint) == (0.3, str(tmp_path / "checkpoint-1"))
    callback, resumed_from = RetentionCallback(GATE), str(tmp_path / "checkpoint-3")
    second = Measured(tmp_path, evaluations, callback, remove_unused_columns=False)
    second.train(resume_from_checkpoint=resumed_from)
    assert second.state.best_model_checkpoint == str(tmp_path / "checkpoint-5")


def test_a_run_in_which_nothing_passed_says_what_to_do(tmp_path, monkeypatch):
    lines = []
    warning = "instructvla.training.retention_callback.logger.warning"
    monkeypatch.setattr(warning, lambda text, *values: lines.append(text % values))
    trainer, _ = run(tmp_path, [(0.3, 5.0), (0.3, 1.0)])
    assert trainer.state.best_model_checkpoint is None
    assert lines[-1].startswith("step 1: the text loss is 5")
    assert "no checkpoint passed the gate. Lower the learning rate" in lines[-1]


def test_another_choice_of_the_best_and_a_missing_metric_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leave out load_best_model_at_end and metric_for_best_model"):
        run(tmp_path, [(0.1, 1.0)], metric_for_best_model="eval_loss")
    with pytest.raises(ValueError, match="the evaluation gave no eval_other .* name another metric"):
        run(tmp_path, [(0.1, 1.0)], RetentionCallback(GATE, metric="eval_other"))
