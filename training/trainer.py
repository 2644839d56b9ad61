"""Both stages' trainer: TRL's `SFTTrainer` with our loss, our stream of batches and checkpoints that load anywhere."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import parse_flag_from_env, save_fsdp_optimizer, send_to_device
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration, InstructVLAOutput
from instructvla.training.data.stream_loader import ResumableStream, StreamLoader
from instructvla.training.loss_log import LossLog
from instructvla.training.query_rows import fold_query_rows, unfold_query_rows
from instructvla.training.retention_callback import RetentionCallback
from instructvla.training.run_card import RunFacts, training_report
from instructvla.training.stop_signal import StopSignal

SAVING = ".saving"  # where a checkpoint is written before it takes its place
DATA_STATE = "data_state_{rank}.json"  # the stream's place, and losses that were not logged yet
BAD_BATCH = "bad_batch_{rank}.json"
OPTIMIZERS = ("optimizer.pt", "optimizer.bin", "latest")  # by torch, FSDP and DeepSpeed
TRAINER_STATE = "trainer_state.json"
TORCH_WRITER = "inline_container"  # in the RuntimeError of a torch.save that can't write
CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")

logger = logging.get_logger(__name__)

# transformers 5.20 gave the field a new name.
_FIELDS = {item.name for item in fields(SFTConfig)}
CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _FIELDS else "gradient_checkpointing"

# A measurement on held-out data: (model, step) → what goes to the log, the same on every rank.
Probe = Callable[[InstructVLAForConditionalGeneration, int], Mapping[str, float]]


class EvaluateAtTheEnd(TrainerCallback):
    """The last step is evaluated, whatever its number."""

    def on_step_end(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.eval_strategy != "no" and state.global_step >= state.max_steps:
            control.should_evaluate = True


class AtTheStart(TrainerCallback):
    """Calls something when training begins, after the library has set everything to its start."""

    def __init__(self, call: Callable[[], None]):
        self.call = call

    def on_train_begin(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.call()


class InstructVLATrainer(SFTTrainer):
    """L = L_LM + L_FM on batches that come whole from data workers (paper section 3.2).

    A step's losses go to the log apart: `lm_loss` and `flow_loss` of robot batches, `chat_loss` of multimodal ones. A
    checkpoint is a folder that `AutoModel.from_pretrained` loads, with what a resumed run needs beside it; it appears
    whole under its name or not at all. A resumed run goes on exactly: weights, optimiser, random numbers and data.

    Args:
        model: with its processor and statistics; which of its tensors are trained is decided (`train_only`).
        args: of the trainer; `trainer_arguments` gives those that this class needs.
        make_stream: (worker, num_workers) → that data worker's batches on this rank, as `CollatedBatches` makes them.
        probes: asked at every evaluation, in this order.
        facts: of the run, for its checkpoints' cards; None leaves the training out of them.
        callbacks: more of them.

    Raises:
        ValueError: nothing is trained.
    """

    def __init__(
        self,
        model: InstructVLAForConditionalGeneration,
        args: SFTConfig,
        make_stream: Callable[[int, int], ResumableStream],
        *,
        probes: Sequence[Probe] = (),
        facts: RunFacts | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError("No tensor of the model is trained; choose some with train_only.")
        self._stop_signal = StopSignal()
        self._loader = StreamLoader(
            make_stream,
            num_workers=args.dataloader_num_workers,
            prefetch=args.dataloader_prefetch_factor or 2,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
        )
        self._probes, self._facts = list(probes), facts
        self._run_dir: str | None = None
        self._unlogged: dict[str, Any] | None = None
        # At the end the library would delete the newest checkpoint rather than the best.
        self._most_checkpoints, args.save_total_limit = args.save_total_limit, None
        super().__init__(
            model=model,
            args=args,
            train_dataset=placeholder_dataset(),
            eval_dataset=placeholder_dataset(),
            data_collator=_unused_collator,
            processing_class=model.processor,
            callbacks=[self._stop_signal, EvaluateAtTheEnd(), AtTheStart(self._restore_losses), *callbacks],
        )
        vars(self.model).pop("forward", None)  # TRL's, with a fused head that assumes another model
        self._losses = LossLog(self.accelerator)

    def get_train_dataloader(self) -> StreamLoader:
        """The stream itself: its shards are the ranks' and workers', so Accelerate has nothing to split."""
        return self._loader

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """L = L_LM + L_FM of a batch, each a mean over the batch.

        Raises:
            ValueError: a loss that is not a number; the message names the batch.
        """
        names = inputs.pop("sample_names", ["unnamed samples"])
        outputs = model(**inputs)
        if not torch.isfinite(outputs.loss):
            raise ValueError(self._describe_bad_batch(outputs, names))
        self._losses.add(outputs.lm_loss, outputs.flow_loss)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _describe_bad_batch(self, outputs: InstructVLAOutput, names: Sequence[str]) -> str:
        """What to say of a loss that is not a number; the batch's samples are also written to a file."""
        step, losses = self.state.global_step + 1, {}
        for name in ("lm_loss", "flow_loss"):
            losses[name] = None if outputs[name] is None else outputs[name].item()
        path = Path(self.args.output_dir) / BAD_BATCH.format(rank=self.args.process_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        report = {"step": step, "losses": {name: str(loss) for name, loss in losses.items()}, "samples": names}
        path.write_text(json.dumps(report), encoding="utf-8")
        return (
            f"step {step}: the loss is {outputs.loss.item()} ({losses}); the batch is {'; '.join(names)} (also in "
            f"{path}). Look at these samples, or lower trainer.learning_rate and go on from the last checkpoint whose "
            "loss was a number"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the library, with the losses since the last time, over all ranks."""
        if "loss" in logs:
            logs |= self._losses.take()
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """What the probes measure on held-out data, logged."""
        model = self.model
        if self.is_fsdp_enabled and "generate_action" not in vars(model):  # the library does so for `generate`
            register_fsdp_forward_method(model, "generate_action")
        metrics: dict[str, float] = {}
        # Acting grows caches step by step, for which compiled layers would be compiled anew.
        with self.accelerator.autocast(), torch.compiler.set_stance("force_eager"):
            for probe in self._probes:
                metrics |= probe(model, self.state.global_step)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def train(self, resume_from_checkpoint: str | Path | None = None, **kwargs: Any) -> Any:
        """Train to `max_steps`, from the start or from a checkpoint of this trainer.

        Raises:
            ValueError: a checkpoint that is not whole, or of another model, data or number of processes or workers.
        """
        if resume_from_checkpoint is not None:
            self._load_run(Path(resume_from_checkpoint))
            resume_from_checkpoint = str(resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        finally:
            self._stop_signal.restore()

    @property
    def stopped_by_signal(self) -> bool:
        return self._stop_signal.received is not None

    @property
    def violation(self) -> str | None:
        """Why the retention gate stopped the run; None if it did not."""
        gates = [callback for callback in self.callback_handler.callbacks if isinstance(callback, RetentionCallback)]
        return next((gate.violation for gate in gates if gate.violation), None)

    def _load_run(self, checkpoint: Path) -> None:
        """Weights and the data's place; the library loads the optimiser and random numbers."""
        data_state = checkpoint / DATA_STATE.format(rank=self.args.process_index)
        whole = (checkpoint / TRAINER_STATE).is_file() and any((checkpoint / name).exists() for name in OPTIMIZERS)
        if not whole or not data_state.is_file():
            raise ValueError(
                f"{checkpoint} is no checkpoint of a training run with as many processes: it lacks {TRAINER_STATE}, "
                f"{data_state.name} or an optimizer's state. Give an output folder's {PREFIX_CHECKPOINT_DIR}-N, and as "
                "many processes as then."
            )
        if (step := saved_step(checkpoint)) >= self.args.max_steps:
            raise ValueError(
                f"{checkpoint} is at step {step} and max_steps is {self.args.max_steps}: nothing is left to train; "
                "raise trainer.max_steps."
            )
        state = json.loads(data_state.read_text(encoding="utf-8"))
        if state["gradient_accumulation_steps"] != self.args.gradient_accumulation_steps:
            raise ValueError(
                f"{checkpoint} was trained with gradient_accumulation_steps {state['gradient_accumulation_steps']}, "
                f"this run has {self.args.gradient_accumulation_steps}; give the same to go on exactly."
            )
        load_weights(self.model, checkpoint)
        self._loader.load_state_dict(state["loader"])
        self._unlogged = state["unlogged"]

    def _data_state(self) -> dict[str, Any]:
        """What `_load_run` takes up again."""
        return {
            "loader": self._loader.state_dict(),
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            "unlogged": {
                "losses": self._losses.state(),
                "total": self._tr_loss.item(),
                "last_logged": self._globalstep_last_logged,
            },
        }

    def _restore_losses(self) -> None:
        """Losses since the last log line before the run was stopped count in the next one."""
        if self._unlogged is not None:
            self._losses.load_state(self._unlogged["losses"])
            self._tr_loss += self._unlogged["total"]
            self._globalstep_last_logged = self._unlogged["last_logged"]
            self._unlogged = None

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in the library; another learning rate than the checkpoint's is the run's from now on."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self.is_deepspeed_enabled:
            return
        before, now = self.lr_scheduler.base_lrs[0], self.args.learning_rate
        if before != now:
            logger.warning("the learning rate was %g and is %g from here on", before, now)
            self.lr_scheduler.base_lrs = [now] * len(self.lr_scheduler.base_lrs)
            for group in self.optimizer.param_groups:
                group["lr"] *= now / before
                group["initial_lr"] = now
            self.lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `train` has loaded the weights before the model was wrapped."""

    def _prepare_input(self, data: Any) -> Any:
        """On the device, each tensor in its own type: for DeepSpeed the library would round flow times and actions."""
        return send_to_device(data, self.args.device)

    def _whole_state(self) -> dict[str, torch.Tensor]:
        """The model's tensors on every rank that saves; trained ones as exact as the optimizer has them."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        if self.is_deepspeed_enabled:  # in bf16 the model's own tensors are rounded copies
            from deepspeed.utils import safe_get_full_fp32_param

            for name, tensor in self.model.named_parameters():
                exact = safe_get_full_fp32_param(tensor) if tensor.requires_grad else None
                if exact is not None:  # there is none where the model's own tensors are trained
                    state[name] = exact
        return state

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model, with processor, code and card, as `save_pretrained` does."""
        state = self._whole_state()
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            folded = fold_query_rows(state, model.config.query_token_id)
            if self._facts is not None:
                model.training_report = training_report(self.state.log_history, self._facts)
            model.save_pretrained(output_dir or self.args.output_dir, state_dict=folded)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The library's checkpoint and the data's place, moved to its name when all ranks have written all of it."""
        output_dir, name = Path(self.args.output_dir), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staging = output_dir / SAVING
        try:
            with self.accelerator.main_process_first():
                if self.args.should_save:
                    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
                    (staging / name).mkdir(parents=True)
            self._run_dir = str(staging)
            super()._save_checkpoint(model, trial)
            data_state = staging / name / DATA_STATE.format(rank=self.args.process_index)
            data_state.write_text(json.dumps(self._data_state()), encoding="utf-8")
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                shutil.rmtree(output_dir / name, ignore_errors=True)
                (staging / name).rename(output_dir / name)
        except (OSError, RuntimeError, SafetensorError) as error:
            if isinstance(error, RuntimeError) and TORCH_WRITER not in str(error):
                raise
            raise ValueError(
                f"{output_dir / name} can't be written: {error}. Earlier checkpoints are whole; free some space and go "
                "on with --resume_from_checkpoint."
            ) from error
        finally:
            self._run_dir = None
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        if self.args.should_save:
            rotate_checkpoints(
                str(output_dir),
                save_total_limit=self._most_checkpoints,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As in the library, but under FSDP without a second copy of the weights."""
        if not self.is_fsdp_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _get_output_dir(self, trial: Any) -> str:
        return self._run_dir or super()._get_output_dir(trial)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `save_pretrained` writes ours."""


def trainer_arguments(output_dir: str | Path, evaluate_every: int | None, **settings: Any) -> SFTConfig:
    """`SFTConfig` with the paper's optimiser (AdamW, constant 5e-5, no warm-up, no decay) and what the trainer needs.

    Args:
        output_dir: of checkpoints and logs.
        evaluate_every: optimiser steps between evaluations; None for none.
        settings: of `SFTConfig`, above these.
    """
    paper = {
        "learning_rate": 5e-5,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": torch.cuda.is_available(),
        "use_cpu": parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available(),
        CHECKPOINTING: False,
        f"{CHECKPOINTING}_kwargs": {"use_reentrant": False},  # the other kind loses gradients behind frozen inputs
        "save_steps": 500,
        "logging_steps": 10,
        "report_to": "none",
        "ddp_find_unused_parameters": False,
    }
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        if old in settings:
            settings[old.replace("gradient_checkpointing", CHECKPOINTING)] = settings.pop(old)
    needed = {
        "output_dir": str(output_dir),
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "ignore_data_skip": True,  # the stream's own state says where it goes on
        "logging_nan_inf_filter": False,  # such a loss stops the run
        "eval_strategy": "no" if evaluate_every is None else "steps",
        "eval_steps": evaluate_every,
        "save_strategy": settings.get("save_strategy", "steps"),
    }
    return SFTConfig(**(paper | settings | needed))


def load_weights(model: InstructVLAForConditionalGeneration, folder: Path) -> None:
    """A saved checkpoint's weights into a model, which may have query rows of its own.

    Raises:
        ValueError: tensors missing, unknown or of another size.
    """
    saved: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        saved |= load_file(path)
    try:
        wanted = model.state_dict()
        model.load_state_dict(unfold_query_rows(saved, wanted, model.config.query_token_id))
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"The weights in {folder} are of another model than this run's: {error}") from error


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    found = {
        int(match[1]): path
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (match := CHECKPOINT.fullmatch(path.name)) and (path / TRAINER_STATE).is_file()
    }
    return found[max(found)] if found else None


def saved_step(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint was saved after."""
    return json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["global_step"]


def placeholder_dataset() -> Any:
    """What TRL asks for: it looks at one sample and refuses torch datasets, but `get_train_dataloader` is ours."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]})


def _unused_collator(samples: Sequence[Any]) -> Any:
    raise RuntimeError("batches are collated in the data workers")
