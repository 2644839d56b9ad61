"""A training run from its settings to its last line; both stages' scripts call it."""

import os
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate.utils import parse_flag_from_env

from instructvla.command_errors import errors_on_stderr
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.training.compiled_layers import compile_for_training
from instructvla.training.data.samples import STAGE_1 as STAGE_1_SHARES
from instructvla.training.data.samples import STAGE_2 as STAGE_2_SHARES
from instructvla.training.held_out import PLOTS, OpenLoopEvaluation, RetentionEvaluation
from instructvla.training.model_source import load, start_model
from instructvla.training.retention import RetentionGate
from instructvla.training.retention_callback import RetentionCallback
from instructvla.training.run_card import DatasetFacts, RunFacts
from instructvla.training.run_config import RunConfig, read_run_config
from instructvla.training.run_lock import only_run
from instructvla.training.trainable_parts import STAGE_1, STAGE_2, count_parts, part_of, parts_table, train_only
from instructvla.training.trainer import (
    TRAINER_STATE,
    InstructVLATrainer,
    Probe,
    last_checkpoint,
    saved_step,
    trainer_arguments,
)
from instructvla.training.training_data import Datasets, make_stream, open_chat, open_datasets

PARTS = {1: STAGE_1, 2: STAGE_2}
SHARES = {1: STAGE_1_SHARES, 2: STAGE_2_SHARES}
STAGE_NAMES = {1: "1, action pre-training", 2: "2, vision-language-action instruction tuning"}
BASE_PARTS = {"embeddings", "language_model", "vision_model", "projector"}


def run(stage: int, config: RunConfig, resume: Path | None = None) -> InstructVLATrainer:
    """Train one stage; returns the trainer after its last step.

    Args:
        stage: 1, action pre-training, or 2, vision-language-action instruction tuning.
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
    """The trainer of a run, before its first step."""
    output_dir = Path(config.output_dir)
    evaluate_every = config.evaluation.every if config.evaluation.episodes else None
    parts = config.train or PARTS[stage]
    # Chat batches leave the action expert without gradients, for which DDP would wait.
    unused = {"ddp_find_unused_parameters": config.data.chat is not None and "action_expert" in parts}
    args = trainer_arguments(output_dir, evaluate_every, **(unused | config.trainer))
    processes, seed = args.distributed_state, args.seed
    if config.model.frozen_dtype == "bfloat16" and not args.bf16:
        raise ValueError("model.frozen_dtype is bfloat16, which needs trainer.bf16: true.")
    with processes.main_process_first():  # it writes statistics and a fresh model, which the others read
        datasets = open_datasets(config.data, config.evaluation, output_dir, seed)
        model = load_of_stage(stage, resume) if resume else start_model(stage, config.model, datasets, output_dir, seed)
    train_only(model, parts)
    keep_frozen_in(model, getattr(torch, config.model.frozen_dtype))
    if config.compile:
        compile_for_training(model)
    if processes.is_main_process:
        typer.echo("\n".join(parts_table(count_parts(model))))
    stream = partial(
        make_stream,
        rank=processes.process_index,
        world_size=processes.num_processes,
        datasets=datasets,
        settings=config.data,
        shares=config.data.shares or SHARES[stage],
        config=model.config,
        processor=model.processor,
        batch_size=args.per_device_train_batch_size,
        seed=seed,
    )
    trainer = InstructVLATrainer(
        model,
        args,
        stream,
        probes=make_probes(config, datasets, model),
        facts=run_facts(stage, config, datasets, model),
        callbacks=gate_callbacks(config),
    )
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and not trainer.is_fsdp_enabled:
        raise ValueError("Accelerate offers FSDP on accelerators only, not on the CPU; launch with ddp.yaml.")
    return trainer


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
        trained = {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
        if moved := sorted(trained & BASE_PARTS):
            raise ValueError(
                f"retention compares with the base model, but train moves the base itself: {', '.join(moved)}. Leave "
                "one of the two out."
            )
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


def load_of_stage(stage: int, checkpoint: Path) -> InstructVLAForConditionalGeneration:
    """The model of a run's checkpoint; one of the other stage is a ValueError."""
    model = load(checkpoint)
    if (model.config.adapter_config.experts > 1) != (stage == 2):
        other = 3 - stage
        remedy = " or start stage 2 from it by model.source" if other == 1 else ""
        raise ValueError(
            f"{checkpoint} is a checkpoint of stage {other}, this is stage {stage}: go on with it by "
            f"training/stage{other}.py{remedy}."
        )
    return model


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
