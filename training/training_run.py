"""A training run from its settings to its last line; both stages' scripts call it."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate.utils import DistributedType, parse_flag_from_env
from transformers.utils import logging
from trl import SFTConfig

from instructvla.command_errors import errors_on_stderr
from instructvla.compiled_layers import compile_layers
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.training.collator import CollatedBatches
from instructvla.training.data.samples import STAGE_1 as STAGE_1_SHARES
from instructvla.training.data.samples import STAGE_2 as STAGE_2_SHARES
from instructvla.training.held_out import PLOTS, OpenLoopEvaluation, RetentionEvaluation
from instructvla.training.model_source import check_source, load, require_checkpoint, start_model
from instructvla.training.retention import RetentionGate
from instructvla.training.retention_callback import RetentionCallback
from instructvla.training.run_card import DatasetFacts, RunFacts
from instructvla.training.run_config import RunConfig, read_run_config
from instructvla.training.run_lock import only_run
from instructvla.training.tower_pretraining import TowerPretrainer
from instructvla.training.trainable_parts import STAGES, check_parts, count_parts, parts_table, stage_parts, train_only
from instructvla.training.trainer import (
    TRAINER_STATE,
    InstructVLATrainer,
    Probe,
    last_checkpoint,
    saved_step,
    trainer_arguments,
)
from instructvla.training.training_data import Datasets, check_pictures, make_stream, open_chat, open_datasets

SHARES = {0: STAGE_1_SHARES, 1: STAGE_1_SHARES, 2: STAGE_2_SHARES}
STAGE_NAMES = {
    0: "0, scene reading",
    1: "1, action pre-training",
    2: "2, vision-language-action instruction tuning",
}
TRAINERS = {0: TowerPretrainer, 1: InstructVLATrainer, 2: InstructVLATrainer}
BASE_PARTS = {"embeddings", "language_model", "vision_model", "projector"}
WITHOUT_FSDP = (DistributedType.NO, DistributedType.MULTI_CPU)

logger = logging.get_logger(__name__)


def run(stage: int, config: RunConfig, resume: Path | None = None) -> InstructVLATrainer:
    """Train one stage; returns the trainer after its last step.

    Args:
        stage: 1, action pre-training, or 2, vision-language-action instruction tuning; 0 comes before them for models
            that start from nothing (`tower_pretraining`).
        config: of the run.
        resume: checkpoint to go on from.

    Raises:
        ValueError: settings, data, model or checkpoint that don't fit; nothing has been trained then, or the message
            says from where to go on.
    """
    with only_run(Path(config.output_dir)) if is_main_process() else nullcontext():
        trainer = prepare_run(stage, config, resume)
        trainer.train(resume)
    return trainer


def is_main_process() -> bool:
    """Before the processes know each other."""
    return int(os.environ.get("RANK", "0")) == 0


def prepare_run(stage: int, config: RunConfig, resume: Path | None) -> InstructVLATrainer:
    """The trainer of a run, before its first step; what costs little is checked first."""
    parts = config.train or STAGES[stage]
    args = run_arguments(config, parts)
    processes = args.distributed_state
    check_settings(config, parts, args)
    with processes.main_process_first():  # it writes statistics and a fresh model, which the others read
        if processes.is_main_process:
            check_files(stage, config, resume)
        datasets = open_datasets(config.data, config.evaluation, Path(config.output_dir), args.seed)
        model = open_model(stage, config, resume, datasets, args.seed)
    set_up(model, config, config.train or stage_parts(stage, model))
    if processes.is_main_process:
        typer.echo("\n".join(parts_table(count_parts(model))))
    return TRAINERS[stage](
        model,
        args,
        stream_maker(stage, config, datasets, model, args),
        probes=make_probes(config, datasets, model),
        facts=run_facts(stage, config, datasets, model),
        callbacks=gate_callbacks(config),
    )


def run_arguments(config: RunConfig, parts: Sequence[str]) -> SFTConfig:
    """The trainer's arguments; making them also makes the launched processes know each other."""
    evaluate_every = config.evaluation.every if config.evaluation.episodes else None
    # Chat batches leave the action expert without gradients, for which DDP would wait.
    unused = {"ddp_find_unused_parameters": chat_rests_the_expert(config, parts)}
    return trainer_arguments(config.output_dir, evaluate_every, **(unused | config.trainer))


def chat_rests_the_expert(config: RunConfig, parts: Sequence[str]) -> bool:
    """Whether some batches leave a trained action expert without gradients."""
    chat = config.data.chat
    return chat is not None and chat.robot_share > 0 and bool({"action_expert", "action_vision"} & set(parts))


def check_settings(config: RunConfig, parts: Sequence[str], args: SFTConfig) -> None:
    """Refuse settings that don't go together, or not with how the run was launched (ValueError)."""
    check_parts(parts)
    if config.model.frozen_dtype == "bfloat16" and not args.bf16:
        raise ValueError("model.frozen_dtype is bfloat16, which needs trainer.bf16: true.")
    if config.retention is not None and (moved := sorted(BASE_PARTS & set(parts))):
        raise ValueError(
            f"retention compares with the base model, but train moves the base itself: {', '.join(moved)}. Leave "
            "one of the two out."
        )
    check_launch(args)
    uses_deepspeed = launched_with("DEEPSPEED") or args.deepspeed is not None
    if uses_deepspeed and chat_rests_the_expert(config, parts) and args.process_index == 0:
        logger.warning(
            "DeepSpeed moves the action expert also in steps of chat batches, by its momentum; DDP and FSDP2 let it "
            "rest then. Launch with one of those to have the paper's steps."
        )


def check_launch(args: SFTConfig) -> None:
    """Refuse processes that would not train together (ValueError)."""
    launched, found = int(os.environ.get("WORLD_SIZE", "1")), args.distributed_state.num_processes
    if found != launched:
        raise ValueError(
            f"{launched} processes were launched, but each would train alone, as trainer.use_cpu is false and no "
            "accelerator was found. Leave trainer.use_cpu out, or set it to true."
        )
    if launched_with("FSDP") and args.distributed_state.distributed_type in WITHOUT_FSDP:
        raise ValueError("Accelerate offers FSDP on accelerators only, not on the CPU; launch with ddp.yaml.")
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched_with("DEEPSPEED") and precision == "bf16" and not args.bf16:
        raise ValueError(
            "DeepSpeed was launched with mixed_precision: bf16, which needs trainer.bf16: true; set both alike."
        )


def launched_with(plugin: str) -> bool:
    """Whether Accelerate's launcher was told to use "FSDP" or "DEEPSPEED"."""
    return parse_flag_from_env(f"ACCELERATE_USE_{plugin}")


def check_files(stage: int, config: RunConfig, resume: Path | None) -> None:
    """Look at what is read late before statistics are computed and a model is loaded.

    Raises:
        ValueError: conversations or pictures that are missing, robot batches in stage 0, or a model that this stage
            can't start from.
    """
    if stage == 0 and (config.data.chat is None or config.data.chat.robot_share):
        raise ValueError(
            "Stage 0 learns from conversations alone: give data.chat with robot_share: 0, as "
            "training/configs/tabletop/stage0.yaml does."
        )
    if config.data.chat is not None:
        check_pictures(open_chat(config.data.chat), config.data.on_bad)
    if config.retention is not None:
        open_chat(config.retention)
    if resume is None:
        check_source(stage, config.model)
    else:
        check_stage(stage, resume)


def open_model(
    stage: int, config: RunConfig, resume: Path | None, datasets: Datasets, seed: int
) -> InstructVLAForConditionalGeneration:
    """The model at the run's start, or that of the checkpoint it goes on from."""
    if resume is not None:
        return load(resume)
    return start_model(stage, config.model, datasets, Path(config.output_dir), seed)


def set_up(model: InstructVLAForConditionalGeneration, config: RunConfig, parts: Sequence[str]) -> None:
    """Freeze what is not trained, in its dtype, and compile the layers if asked to."""
    train_only(model, parts)
    keep_frozen_in(model, getattr(torch, config.model.frozen_dtype))
    if config.compile:
        compile_layers(model)


def stream_maker(
    stage: int, config: RunConfig, datasets: Datasets, model: InstructVLAForConditionalGeneration, args: SFTConfig
) -> Callable[[int, int], CollatedBatches]:
    """(worker, num_workers) → the batches of that data worker on this rank."""
    return partial(
        make_stream,
        rank=args.process_index,
        world_size=args.world_size,
        datasets=datasets,
        settings=config.data,
        shares=config.data.shares or SHARES[stage],
        config=model.config,
        processor=model.processor,
        batch_size=args.per_device_train_batch_size,
        seed=args.seed,
    )


def make_probes(config: RunConfig, datasets: Datasets, model: InstructVLAForConditionalGeneration) -> list[Probe]:
    """What is measured at each evaluation."""
    probes: list[Probe] = []
    if config.evaluation.episodes:
        probes.append(
            OpenLoopEvaluation(
                datasets.held_out,
                model.processor,
                horizon=model.config.horizon,
                chunks=config.evaluation.chunks,
                batch_size=config.evaluation.batch_size,
                plots=Path(config.output_dir) / PLOTS,
                on_bad=config.data.on_bad,
            )
        )
    if config.retention is not None:
        probes.append(
            RetentionEvaluation(
                config.retention,
                model.processor,
                max_length=config.data.max_length,
                batch_size=config.evaluation.batch_size,
            )
        )
    return probes


def gate_callbacks(config: RunConfig) -> list[RetentionCallback]:
    settings = config.retention
    if settings is None:
        return []
    gate = RetentionGate(settings.max_loss_increase, settings.max_score_drop)
    return [RetentionCallback(gate, grace_steps=settings.grace_steps)]


def run_facts(
    stage: int, config: RunConfig, datasets: Datasets, model: InstructVLAForConditionalGeneration
) -> RunFacts:
    """What a checkpoint's card says of the run beside its log."""
    facts = [
        DatasetFacts(key, datasets.weights[key], len(reader), datasets.frames[key])
        for key, reader in datasets.training.items()
    ]
    if config.data.chat is not None:
        facts.append(DatasetFacts(Path(config.data.chat.file).name, frames=len(open_chat(config.data.chat))))
    processor = model.processor
    return RunFacts(
        stage=STAGE_NAMES[stage],
        settings=asdict(config),
        datasets=facts,
        parameters=count_parts(model),
        action_names=processor.action_names,
        action_units=processor.action_units,
        gripper_dims=processor.gripper_dims,
        started_from=config.model.source,
    )


def check_stage(stage: int, checkpoint: Path) -> None:
    """Refuse to go on with what is no checkpoint, or one of another stage (ValueError)."""
    require_checkpoint(checkpoint)
    is_stage2 = InstructVLAConfig.from_pretrained(checkpoint).adapter_config.experts > 1
    if is_stage2 != (stage == 2):
        found = "stage 2" if is_stage2 else "an earlier stage"
        remedy = "training/stage2.py" if is_stage2 else "its own script, or start stage 2 from it by model.source"
        raise ValueError(f"{checkpoint} is a checkpoint of {found}, this is stage {stage}: go on with it by {remedy}.")


def keep_frozen_in(model: InstructVLAForConditionalGeneration, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def resume_from(given: str | None, output_dir: str) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` means; "last" is the newest of the output folder, if any.

    Raises:
        ValueError: no such folder.
    """
    if given is None:
        return None
    if given == "last":
        return last_checkpoint(output_dir)
    if not Path(given).is_dir():
        raise ValueError(
            f"--resume_from_checkpoint {given} is no folder; give {output_dir}/checkpoint-N, or `last` for the newest."
        )
    return Path(given)


def refuse_finished_folder(output_dir: str, resume: Path | None) -> None:
    """Refuse to mix a new run's checkpoints with another's (ValueError)."""
    if resume is None and (found := last_checkpoint(output_dir)):
        raise ValueError(
            f"{output_dir} holds the run that wrote {found.name}. Go on with it by --resume_from_checkpoint last, or "
            "give another output_dir."
        )


def stage_app(stage: int, default_config: str) -> typer.Typer:
    """The command line of one stage's script."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def main(
        config: Annotated[Path, typer.Option(help="YAML file of the run.")] = Path(default_config),
        setting: Annotated[
            list[str] | None, typer.Option("--set", help="KEY=VALUE above the file, e.g. trainer.max_steps=100.")
        ] = None,
        resume_from_checkpoint: Annotated[
            str | None,
            typer.Option("--resume_from_checkpoint", help="Checkpoint folder, or `last` for the newest, if any."),
        ] = None,
        push_to_hub: Annotated[
            str | None, typer.Option("--push_to_hub", help="Repository that the last checkpoint is published in.")
        ] = None,
    ) -> None:
        with errors_on_stderr():
            settings = read_run_config(config, setting or [])
            resume = resume_from(resume_from_checkpoint, settings.output_dir)
            refuse_finished_folder(settings.output_dir, resume)
            if resume is not None and is_finished(resume, settings):
                report_checkpoint(resume, settings, push_to_hub)
                return
            report_end(run(stage, settings, resume), settings, push_to_hub)

    main.__doc__ = f"Train stage {stage} of InstructVLA."
    return app


def is_finished(checkpoint: Path, config: RunConfig) -> bool:
    """Whether a run has made all its steps already, as a requeued one may have."""
    return (checkpoint / TRAINER_STATE).is_file() and saved_step(checkpoint) >= config.trainer["max_steps"]


def report_end(trainer: InstructVLATrainer, config: RunConfig, push_to_hub: str | None) -> None:
    """Where the checkpoint is, and what comes next."""
    if not trainer.accelerator.is_main_process:
        return
    checkpoint = last_checkpoint(config.output_dir)
    if trainer.stopped_by_signal:
        typer.echo(f"stopped at step {trainer.state.global_step}; go on with --resume_from_checkpoint {checkpoint}")
        return
    if trainer.violation is not None:
        typer.echo(f"stopped by the retention gate: {trainer.violation}")
        checkpoint = Path(trainer.state.best_model_checkpoint or checkpoint)
    report_checkpoint(checkpoint, config, push_to_hub)


def report_checkpoint(checkpoint: Path, config: RunConfig, push_to_hub: str | None) -> None:
    lines = [f"trained: {checkpoint}"]
    if push_to_hub is not None:
        lines.append(f"published: {load(checkpoint).push_to_hub(push_to_hub)}")
    lines.append(f"evaluate it: instructvla open-loop {checkpoint} {config.data.datasets[0].source}")
    typer.echo("\n".join(lines))
