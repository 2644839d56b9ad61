"""How fast a training step is, and which share of the machine's measured matmul peak it reaches (`make bench-train`).

Random weights and random tokens at the paper's sequence lengths: on a CPU a fraction of its width and depth in float32,
on a GPU the full model. A step is the recipe's (training/configs): gradients clipped at norm 1, fused AdamW, and on a
GPU bfloat16 autocast over trained tensors in float32 and frozen ones in bfloat16. The peak is that of square matrix
products, in bfloat16 on a GPU, measured in the same run in turns with the steps, so that other work on the machine
slows both.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers.utils import logging

from instructvla.command_errors import errors_on_stderr
from instructvla.compiled_layers import compile_layers
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import require
from instructvla.evaluation.bench import mid_size_fields
from instructvla.evaluation.roofline import MatmulPeak, synchronize, timed
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import random_model
from instructvla.training.trainable_parts import STAGE_1, STAGE_2, train_only
from instructvla.training.training_flops import Flops, StepShape, training_flops
from instructvla.training.training_run import keep_frozen_in

STAGES = {1: STAGE_1, 2: STAGE_2}
VARIANTS = ("plain", "compile", "checkpointing", "compile+checkpointing")
SIZES = ("nano", "mid", "full")
PROMPT_WORDS, ANSWER_WORDS = 60, 20  # tokens around the picture and before the queries, as a robot sample has them
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Setting:
    """What one row of the table measures."""

    stage: int
    batch: int
    variant: str


@dataclass
class Result:
    """One row. Rates are those of the fastest step, which other work on the machine disturbs least.

    Args:
        peak, achieved: FLOP/s of the fastest matrix product and of the fastest step, which counts the FLOPs that
            training needs (`training_flops`), not those that checkpointing repeats.
        share, median_share: achieved over peak; of the medians, which tells how busy the machine was.
        memory: bytes; of the GPU's allocator, or of the whole process.
        seconds: part → time in one step, the median of some that were timed apart.
        flops: part → FLOPs.
    """

    setting: Setting
    samples_per_second: float
    tokens_per_second: float
    step_seconds: float
    peak: float
    achieved: float
    share: float
    median_share: float
    memory: int
    seconds: dict[str, float] = field(default_factory=dict)
    flops: dict[str, Flops] = field(default_factory=dict)


def config_of(size: str, stage: int) -> InstructVLAConfig:
    """A configuration of one of `SIZES` with the experts of a stage."""
    if size == "nano":
        return InstructVLAConfig.nano(adapter_config={"rank": 16, "alpha": 32, "scale_head_size": 64, "experts": stage})
    if size == "mid":
        fields = mid_size_fields()
        return InstructVLAConfig.nano(**fields | {"adapter_config": fields["adapter_config"] | {"experts": stage}})
    return InstructVLAConfig.instructvla_2b(adapter_config={"experts": stage})


def trainable_model(config: InstructVLAConfig, stage: int, device: torch.device) -> InstructVLAForConditionalGeneration:
    """Random weights, ready to train what the stage trains: float32, but on a GPU what is frozen is bfloat16."""
    with device:
        model = random_model(config, seed=0)
    train_only(model, STAGES[stage])
    if device.type == "cuda":
        keep_frozen_in(model, torch.bfloat16)
    return model.train()


def random_batch(config: InstructVLAConfig, rows: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A robot batch as `ActionCollator` makes it: prompt, picture, answer and all queries, and an action chunk."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, 1000, (rows, PROMPT_WORDS), generator=generator)
    picture = torch.full((rows, config.num_image_tokens), config.image_token_id)
    answer = torch.randint(0, 1000, (rows, ANSWER_WORDS), generator=generator)
    queries = (config.query_token_id + torch.arange(config.num_action_queries)).expand(rows, -1)
    ids = torch.cat([prompt, picture, answer, queries], dim=1)
    labels = ids.clone()
    labels[:, : PROMPT_WORDS + config.num_image_tokens] = -100
    size, expert_size = config.vision_config.image_size, config.action_vision_config.image_size
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "pixel_values": torch.rand(rows, 3, size, size, generator=generator),
        "actions": torch.rand(rows, config.horizon, config.action_dim, generator=generator),
        "action_mask": torch.ones(rows, config.horizon, dtype=torch.bool),
        "action_pixel_values": torch.rand(rows, 1, 3, expert_size, expert_size, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


class TrainingStep:
    """One model, one batch, one optimiser: `run` is one step, as the trainer makes it."""

    def __init__(self, config: InstructVLAConfig, setting: Setting, device: torch.device):
        self.device = device
        self.model = trainable_model(config, setting.stage, device)
        if "checkpointing" in setting.variant:
            older = self.model.gradient_checkpointing_enable  # its name before transformers 5.23
            getattr(self.model, "activation_checkpointing_enable", older)({"use_reentrant": False})
        if "compile" in setting.variant:
            compile_layers(self.model)
        self.batch = random_batch(config, setting.batch, device)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=5e-5, weight_decay=0.0, fused=True)

    def run(self, mark: Callable[[str], None] = lambda part: None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.model(**self.batch).loss
        mark("action expert")
        loss.backward()
        mark("backward")
        torch.nn.utils.clip_grad_norm_(self.trained, MAX_GRAD_NORM)
        self.optimizer.step()
        mark("optimizer")

    def part_seconds(self) -> dict[str, float]:
        """Part → seconds in one step, from clock readings between the parts."""
        seconds: dict[str, float] = {}
        synchronize(self.device)
        last = time.perf_counter()

        def mark(part: str) -> None:
            nonlocal last
            synchronize(self.device)
            now = time.perf_counter()
            seconds[part] = seconds.get(part, 0.0) + now - last
            last = now

        hooks = list(self._hooks(mark))
        try:
            self.run(mark)
        finally:
            for hook in hooks:
                hook.remove()
        return seconds

    def _hooks(self, mark: Callable[[str], None]) -> Iterator[Any]:
        """The parts run one after the other, so a reading at the end of each is enough."""
        language = self.model.language_model
        passes = iter(["base pass", "adapted pass"] if language.scale_head is not None else ["adapted pass"])
        yield self.model.vision_model.register_forward_hook(lambda *_: mark("SigLIP"))
        yield self.model.projector.register_forward_hook(lambda *_: mark("projector"))
        yield language.norm.register_forward_hook(lambda *_: mark(next(passes)))
        if language.scale_head is not None:
            yield language.scale_head.register_forward_hook(lambda *_: mark("scale head"))
        expert = self.model.action_expert
        yield expert.vision.register_forward_pre_hook(lambda *_: mark("lm_head and its loss"))
        yield expert.vision.register_forward_hook(lambda *_: mark("DINO"))


def measure(config: InstructVLAConfig, setting: Setting, device: torch.device, repeats: int) -> Result:
    """Time one setting; a step that does not fit is `torch.OutOfMemoryError`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step, peak = TrainingStep(config, setting, device), MatmulPeak(device)
    for _ in range(2):  # compiles, makes the optimiser's state
        step.run()
    peak.measure()
    peaks, seconds = [], []
    for _ in range(repeats):
        peaks.append(peak.measure())
        seconds.append(timed(step.run, device))
    parts = [step.part_seconds() for _ in range(max(3, repeats // 3))]
    shape = StepShape.of(step.batch)
    flops = training_flops(config, STAGES[setting.stage], shape)
    needed, best = sum(part.model for part in flops.values()), min(seconds)
    return Result(
        setting,
        samples_per_second=shape.rows / best,
        tokens_per_second=shape.rows * shape.tokens / best,
        step_seconds=best,
        peak=max(peaks),
        achieved=needed / best,
        share=needed / best / max(peaks),
        median_share=needed / statistics.median(seconds) / statistics.median(peaks),
        memory=memory_of(device),
        seconds={name: statistics.median(part[name] for part in parts) for name in parts[0]},
        flops=flops,
    )


def memory_of(device: torch.device) -> int:
    """Bytes at the highest point: allocated on a GPU, resident of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


COLUMNS = ("stage", "batch", "variant", "samples/s", "tokens/s", "ms/step", "GFLOP/s", "peak", "share", "median", "GB")
HEADER = "{:>5}{:>6}  {:<22}{:>10}{:>10}{:>10}{:>10}{:>10}{:>8}{:>8}{:>7}".format(*COLUMNS)


def row(result: Result) -> str:
    """One line under `HEADER`."""
    setting = result.setting
    return (
        f"{setting.stage:>5}{setting.batch:>6}  {setting.variant:<22}{result.samples_per_second:>10.2f}"
        f"{result.tokens_per_second:>10.0f}{1000 * result.step_seconds:>10.1f}{result.achieved / 1e9:>10.1f}"
        f"{result.peak / 1e9:>10.1f}{result.share:>8.1%}{result.median_share:>8.1%}{result.memory / 1e9:>7.2f}"
    )


def breakdown(result: Result) -> str:
    """Where the time of one step goes."""
    setting, whole = result.setting, sum(result.seconds.values())
    lines = [f"stage {setting.stage}, batch {setting.batch}, {setting.variant}"]
    for name, seconds in result.seconds.items():
        flops = flops_between_readings(result.flops, name)
        rate = f"{flops / seconds / 1e9:>10.1f} GFLOP/s" if flops else ""
        lines.append(f"  {name:<22}{1000 * seconds:>10.1f} ms{seconds / whole:>8.1%}{rate}")
    return "\n".join(lines)


def flops_between_readings(flops: dict[str, Flops], name: str) -> int:
    """FLOPs of what `part_seconds` calls by a name, 0 for what has no matrix products."""
    if name == "backward":
        return sum(part.backward for part in flops.values())
    parts = {"adapted pass": ["adapted pass", "LoRA"], "lm_head and its loss": ["lm_head"]}.get(name, [name])
    return sum(flops[part].forward for part in parts if part in flops)


def chosen(name: str, given: str | None, default: Sequence, allowed: Sequence | None = None) -> list:
    """A comma-separated option as a list of the default's type, checked (ValueError)."""
    parts = [str(value) for value in default] if given is None else [part.strip() for part in given.split(",")]
    if isinstance(default[0], int):
        for part in parts:
            require(part.isdecimal() and int(part) > 0, name, part, "a number above 0, or several as in 8,16")
        parts = [int(part) for part in parts]
    for part in parts if allowed is not None else ():
        require(part in allowed, name, part, f"one of {', '.join(map(str, allowed))}")
    return parts


app = typer.Typer(add_completion=False)


@app.command()
def main(
    size: Annotated[str | None, typer.Option(help="nano, mid or full; default: mid, on a GPU full.")] = None,
    stages: Annotated[str | None, typer.Option(help="1,2")] = None,
    batches: Annotated[str | None, typer.Option(help="Rows per step; default: 4, on a GPU 8,16,32.")] = None,
    variants: Annotated[
        str | None, typer.Option(help=f"Of {', '.join(VARIANTS)}; default: plain, on a GPU all.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed steps of each setting.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of torch.")] = None,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Also write the numbers as JSON.")] = None,
) -> None:
    """Print samples/s, FLOP/s and their share of the matmul peak for both stages of training."""
    logging.set_verbosity_error()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if threads is not None:
        torch.set_num_threads(threads)
    with errors_on_stderr():
        (size,) = chosen("--size", size, ["full" if cuda else "mid"], SIZES)
        settings = [
            Setting(stage, batch, variant)
            for stage in chosen("--stages", stages, list(STAGES), list(STAGES))
            for batch in chosen("--batches", batches, [8, 16, 32] if cuda else [4])
            for variant in chosen("--variants", variants, VARIANTS if cuda else VARIANTS[:1], VARIANTS)
        ]
        writable = output is None or os.access(output.absolute().parent, os.W_OK)
        require(writable, "--output", str(output), "a file in a folder that exists and can be written")
    name = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
    typer.echo(f"{size} size on {name}, {'bfloat16 autocast' if cuda else 'float32'}, torch {torch.__version__}")
    typer.echo(HEADER)
    results = []
    for setting in settings:
        try:
            results.append(measure(config_of(size, setting.stage), setting, device, repeats))
            typer.echo(row(results[-1]))
        except torch.OutOfMemoryError:
            typer.echo(f"stage {setting.stage}, batch {setting.batch}, {setting.variant}: out of memory", err=True)
    for result in results:
        typer.echo(f"\n{breakdown(result)}")
    if output is not None:
        output.write_text(json.dumps([asdict(result) for result in results], indent=2), encoding="utf-8")


if __name__ == "__main__":
    app()
