"""`instructvla latency MODEL`: time per action in the protocol of the paper's Table 14.

No chunking: one action per call. "With language" answers in words every 20 steps and acts on the last answer between;
"action only" never speaks; "latent action caching" runs the VLM every other step. 50 steps of warm-up, 200 measured.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from instructvla.argument_checks import parse_counts
from instructvla.command_errors import errors_on_stderr
from instructvla.compiled_inference import MODES
from instructvla.evaluation.decision_cadence import Cadence
from instructvla.evaluation.demo_scene import draw_tabletop_scene
from instructvla.evaluation.doctor import choose_device
from instructvla.evaluation.inference_model import UNTRAINED, load_for_inference
from instructvla.evaluation.latency_plot import described, draw_latency
from instructvla.evaluation.one_picture import DEFAULT_INSTRUCTION, check_picture, save_picture
from instructvla.evaluation.roofline import Peaks
from instructvla.evaluation.stage_latency import measure_stages, stage_table
from instructvla.evaluation.throughput import curve_points, measure_throughput, throughput_table
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from instructvla.plain_files import check_output_file

WARM_UP, STEPS = 50, 200
RETHINK = 20  # steps between two answers
MOST_ROWS = 1024
SETTINGS: Mapping[str, Cadence] = {
    "with language": Cadence(think=True, rethink=RETHINK),
    "action only": Cadence(),
    "latent action caching": Cadence(ratio=2),
}
PAPER_HZ = {"with language": 2.07, "action only": 3.50, "latent action caching": 4.96}  # Table 14: A100, bf16
PACKAGES = ("torch", "transformers", "instructvla")

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Latency:
    """Times of single actions.

    Args:
        setting: row of Table 14.
        milliseconds: of each measured step.
        words: tokens of each answer.
    """

    setting: str
    milliseconds: tuple[float, ...]
    words: tuple[int, ...]

    @property
    def hertz(self) -> float:
        """Actions per second over all measured steps, as the paper counts."""
        return 1000 * len(self.milliseconds) / sum(self.milliseconds)

    def percentile(self, percent: float) -> float:
        """Of the steps' times, ms."""
        return float(np.percentile(self.milliseconds, percent))

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "setting": self.setting,
            "steps": len(self.milliseconds),
            "p50_ms": self.percentile(50),
            "p99_ms": self.percentile(99),
            "hz": self.hertz,
            "paper_a100_hz": PAPER_HZ[self.setting],
            "tokens_per_answer": float(np.mean(self.words)) if self.words else None,
        }


def measure_latency(
    model: Any, setting: str, warm_up: int = WARM_UP, steps: int = STEPS, max_new_tokens: int = 50, bar: Any = None
) -> Latency:
    """Times of `generate_action` on one picture, each step until its actions are on the CPU.

    Args:
        model: in evaluation mode.
        setting: of `SETTINGS`.
        warm_up, steps: not measured, and measured.
        max_new_tokens: longest answer.
        bar: progress, updated at each step.
    """
    cadence, scene = SETTINGS[setting], draw_tabletop_scene()
    processor = model.processor
    images = {camera: scene for camera in processor.cameras} if len(processor.cameras) > 1 else scene
    options = {
        "state": None if processor.state_dim is None else np.zeros(processor.state_dim),
        "unnorm_key": next(iter(processor.statistics)),
        "max_new_tokens": max_new_tokens,
    }
    times, words, context = [], [], None
    for number in range(warm_up + steps):
        mode = cadence.mode(number)
        generator = torch.Generator().manual_seed(number)
        start = time.perf_counter()
        output = model.generate_action(
            images,
            DEFAULT_INSTRUCTION,
            think=mode.think,
            context=None if mode.is_fresh else context,
            reuse_latent=mode.reuse_latent,
            generator=generator,
            **options,
        )
        output.actions.cpu()
        times.append(1000 * (time.perf_counter() - start))
        context = output.context
        if mode.think:
            words.append(len(context.response_ids[0]))
        if bar is not None:
            bar.update()
    return Latency(setting, tuple(times[warm_up:]), tuple(words))


def latency_table(found: Sequence[Latency], horizon: int) -> str:
    """A row per setting, with the paper's rate beside, and the rate where all actions of a chunk are executed."""
    lines = [
        f"{'':<24}{'p50, ms':>10}{'p99, ms':>10}{'Hz':>9}{'paper, A100':>13}{f'chunks of {horizon}':>14}{'tokens':>8}"
    ]
    for one in found:
        tokens = f"{np.mean(one.words):.0f}" if one.words else "–"
        times = f"{one.percentile(50):>10.1f}{one.percentile(99):>10.1f}"
        lines.append(
            f"{one.setting:<24}{times}{one.hertz:>9.2f}{PAPER_HZ[one.setting]:>13.2f}"
            f"{horizon * one.hertz:>14.1f}{tokens:>8}"
        )
    return "\n".join(lines)


def environment(model: Any) -> dict[str, Any]:
    """What the times are of: device, precision, versions."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantized": model.quantized,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": weights_fingerprint(model),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


@app.command()
def main(
    model: Annotated[str, typer.Argument(help=f"Folder or Hub repository; {', '.join(UNTRAINED)}: untrained.")],
    revision: Annotated[str | None, typer.Option(help="Of the Hub repository.")] = None,
    device: Annotated[str | None, typer.Option(help="E.g. cuda:1; default: CUDA where there is one.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16, int8 or fp8; default: fp32 on a CPU, else bf16.")
    ] = None,
    warm_up: Annotated[int, typer.Option(min=0, help="Steps that are not measured.")] = WARM_UP,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps.")] = STEPS,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 50,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="On fixed shapes; CUDA graphs.")] = False,
    stage_repeats: Annotated[int, typer.Option(min=1, help="Actions that the stages are measured on.")] = 10,
    batches: Annotated[str | None, typer.Option(help="Rows per call for the throughput, e.g. 1,2,4,8,64.")] = None,
    batch_repeats: Annotated[int, typer.Option(min=1, help="Measured calls for each of them.")] = 10,
    output: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw them, e.g. latency.png.")] = None,
) -> None:
    """Measure the time per action in the paper's three settings."""
    with errors_on_stderr():
        check_output_file(output)
        if plot is not None:
            check_picture(plot, "--plot")
        rows = [] if batches is None else parse_counts("--batches", batches, MOST_ROWS)
        place = choose_device(device)
        loaded = load_for_inference(model, revision, device, precision or ("fp32" if place.type == "cpu" else "bf16"))
        if compiled:
            tokens = len(loaded.processor.encode_text(DEFAULT_INSTRUCTION))
            options = {"instruction_tokens": tokens, "max_new_tokens": max_new_tokens}
            typer.echo(loaded.compile_for_inference(rows=sorted({1, *rows}), modes=MODES, **options))
        with tqdm(total=len(SETTINGS) * (warm_up + steps), unit="action") as bar:
            found = [measure_latency(loaded, name, warm_up, steps, max_new_tokens, bar) for name in SETTINGS]
        with tqdm(total=len(curve_points(rows)), unit="batch", disable=not rows) as bar:
            curve = measure_throughput(loaded, rows, batch_repeats, max_new_tokens, bar)
        about = environment(loaded)
        peaks, costs = Peaks.measured(place, loaded.dtype), measure_stages(loaded, stage_repeats)
        typer.echo(latency_table(found, loaded.config.horizon))
        typer.echo("\n" + stage_table(costs, peaks) + "\n")
        if curve:
            typer.echo(throughput_table(curve) + "\n")
        record = {
            "model": model,
            "environment": about | {"compiled": compiled, **asdict(peaks)},
            "warm_up": warm_up,
            "rows": [one.record() for one in found],
            "stages": [cost.record(peaks) for cost in costs],
            "throughput": [one.record() for one in curve],
        }
        typer.echo(f"{described(record)}; {warm_up} steps of warm-up and {steps} measured, one action per call")
        if output is not None:
            output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if plot is not None:
            save_picture(draw_latency(record), plot)


if __name__ == "__main__":
    app()
