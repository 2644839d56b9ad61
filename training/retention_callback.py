"""Stops a run that forgets what the VLM knew, and keeps its best checkpoint until then."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from instructvla.training.open_loop import ERROR
from instructvla.training.retention import RetentionGate

logger = logging.get_logger(__name__)


class RetentionCallback(TrainerCallback):
    """At each evaluation: passes the gate → a checkpoint if it is the best so far; else → the run stops.

    The best is that with the lowest `metric` among those that pass. It is noted in the trainer's state
    (`best_metric`, `best_model_checkpoint`), which every checkpoint holds, so a resumed run goes on with it; the
    trainer's rotation of checkpoints must spare it. Metrics are the same on every rank, and so is what is decided.

    Args:
        gate: with its limits.
        metric: what the evaluation calls the number to be minimised.
        grace_steps: optimiser steps before which a violation is only logged: stage 2 starts with stage 1's action
            expert, whose effect on texts the scale head has yet to learn to hold back.

    Attributes:
        violation: why the run was stopped; None if it was not.

    Raises:
        ValueError: at the start of training, with arguments by which the trainer would choose the best itself; at an
            evaluation that lacks a metric.
    """

    def __init__(self, gate: RetentionGate, *, metric: str = ERROR, grace_steps: int = 1):
        self.gate, self.metric, self.grace_steps = gate, metric, grace_steps
        self.violation: str | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.violation = None
        if args.load_best_model_at_end or args.metric_for_best_model is not None:
            raise ValueError(
                f"the retention gate keeps the checkpoint with the lowest {self.metric} of those that pass; leave out "
                "load_best_model_at_end and metric_for_best_model"
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        violation = self.gate.violation(metrics)
        if violation is None:
            self._keep_if_best(args, state, control, metrics)
        elif state.global_step < self.grace_steps:
            logger.warning(
                "step %d: %s. The run goes on until step %d.", state.global_step, violation, self.grace_steps
            )
        else:
            self.violation = violation
            control.should_training_stop = True
            logger.warning("step %d: %s. The run stops; %s", state.global_step, violation, self._best(state))

    def _keep_if_best(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float]
    ) -> None:
        if self.metric not in metrics:
            raise ValueError(
                f"the evaluation gave no {self.metric} to choose the best checkpoint by, only {sorted(metrics)}; hold "
                "out episodes, or name another metric"
            )
        is_first = state.best_metric is None or state.best_model_checkpoint is None
        if state.global_step > 0 and (is_first or metrics[self.metric] < state.best_metric):
            state.best_metric = metrics[self.metric]
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            state.best_model_checkpoint = str(folder)
            control.should_save = True

    def _best(self, state: TrainerState) -> str:
        if state.best_model_checkpoint is None:
            return "no checkpoint passed the gate. Lower the learning rate, or raise the share of multimodal data."
        return f"the best checkpoint is {state.best_model_checkpoint} ({self.metric} {state.best_metric:.4g})."
