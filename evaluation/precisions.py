"""`instructvla precisions MODEL`: what fewer bits save and cost: time, bytes of weights, action error against bf16.

Every precision acts on the same pictures from the same noise, without words, so that errors are of the actions alone;
how often it then says the same words as bf16 is counted beside.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.demo_scene import draw_tabletop_scene
from instructvla.evaluation.doctor import choose_device
from instructvla.evaluation.inference_model import UNTRAINED, load_for_inference
from instructvla.evaluation.latency import environment
from instructvla.evaluation.one_picture import DEFAULT_INSTRUCTION
from instructvla.evaluation.stage_latency import size_of
from instructvla.plain_files import check_output_file
from instructvla.weight_precision import check_precision, supported_precisions

REFERENCE = "bf16"
NORMALIZED_RANGE = 2.0  # q01 to q99 is −1 to 1

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class PrecisionRun:
    """What one precision did on every sample.

    Args:
        act_ms, think_ms: of each sample, without and with words.
        weight_bytes: of the whole model.
        actions: normalised, acted without words, (samples, horizon, action_dim).
        responses: of each sample.
    """

    precision: str
    act_ms: tuple[float, ...]
    think_ms: tuple[float, ...]
    weight_bytes: int
    actions: torch.Tensor
    responses: tuple[str, ...]

    def record(self, reference: "PrecisionRun") -> dict[str, Any]:
        """As JSON; errors as shares of a dimension's range from q01 to q99."""
        errors = (self.actions - reference.actions).abs() / NORMALIZED_RANGE
        return {
            "precision": self.precision,
            "act_p50_ms": median(self.act_ms),
            "think_p50_ms": median(self.think_ms),
            "weights_mb": self.weight_bytes / 1e6,
            "error_mean": errors.mean().item(),
            "error_max": errors.max().item(),
            "same_words": sum(a == b for a, b in zip(self.responses, reference.responses, strict=True)),
        }


def run_precisions(models: Mapping[str, Any], samples: int, max_new_tokens: int, bar: Any = None) -> list[PrecisionRun]:
    """Act and think on drawn pictures, after one that is not measured. The models, by their precision, take turns, so
    that a busy moment of the machine hits all of them."""
    act_ms, think_ms, actions, responses = ({name: [] for name in models} for _ in range(4))
    for number in [0, *range(samples)]:
        for name, model in models.items():
            acted, milliseconds = timed_call(model, number, think=False, max_new_tokens=max_new_tokens)
            act_ms[name].append(milliseconds)
            actions[name].append(acted.normalized_actions.float().cpu())
            thought, milliseconds = timed_call(model, number, think=True, max_new_tokens=max_new_tokens)
            think_ms[name].append(milliseconds)
            responses[name].append(thought.response[0])
            if bar is not None:
                bar.update()
    return [
        PrecisionRun(
            precision=name,
            act_ms=tuple(act_ms[name][1:]),
            think_ms=tuple(think_ms[name][1:]),
            weight_bytes=size_of(model),
            actions=torch.cat(actions[name][1:]),
            responses=tuple(responses[name][1:]),
        )
        for name, model in models.items()
    ]


def timed_call(model: Any, number: int, **options) -> tuple[Any, float]:
    """One action on the picture and from the noise of this number, and its milliseconds until it is on the CPU."""
    processor, config, scene = model.processor, model.config, draw_tabletop_scene(seed=number)
    images = {camera: scene for camera in processor.cameras} if len(processor.cameras) > 1 else scene
    noise = torch.randn(1, config.horizon, config.action_dim, generator=torch.Generator().manual_seed(number))
    state = None if processor.state_dim is None else np.zeros(processor.state_dim)
    options |= {"state": state, "unnorm_key": next(iter(processor.statistics)), "noise": noise}
    start = time.perf_counter()
    output = model.generate_action(images, DEFAULT_INSTRUCTION, **options)
    output.actions.cpu()
    return output, 1000 * (time.perf_counter() - start)


def precision_table(records: Sequence[dict[str, Any]], samples: int) -> str:
    """A row per precision; the first is what the others are compared with."""
    lines = [
        f"{'':<8}{'act p50, ms':>13}{'think p50, ms':>15}{'weights, MB':>13}{'error mean':>12}{'max':>9}{'words':>9}"
    ]
    for row in records:
        numbers = f"{row['act_p50_ms']:>13.1f}{row['think_p50_ms']:>15.1f}{row['weights_mb']:>13.1f}"
        words = f"{row['same_words']} / {samples}"
        errors = f"{row['error_mean']:>12.3%}{row['error_max']:>9.2%}{words:>10}"
        lines.append(f"{row['precision']:<8}{numbers}{errors}")
    lines.append(
        f"errors against {REFERENCE}: of actions without words, in % of each dimension's range from q01 to q99; words: "
        "answers that are the same"
    )
    return "\n".join(lines)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help=f"Folder or Hub repository; {', '.join(UNTRAINED)}: untrained.")],
    precision: Annotated[list[str] | None, typer.Option(help="Beside bf16; repeatable; default: all.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the Hub repository.")] = None,
    device: Annotated[str | None, typer.Option(help="E.g. cuda:1; default: CUDA where there is one.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Pictures, each with a noise of its own.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 20,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="On fixed shapes; CUDA graphs.")] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the numbers as JSON.")] = None,
) -> None:
    """Compare precisions: time, bytes of weights, and action error against bf16. Memory holds all models at once."""
    with errors_on_stderr():
        place = choose_device(device)
        for name in precision or []:
            check_precision(name, place)
        check_output_file(output)
        names = list(dict.fromkeys([REFERENCE, *(precision or supported_precisions(place))]))
        models = {name: load_for_inference(model, revision, device, name) for name in names}
        if compiled:
            tokens = len(models[REFERENCE].processor.encode_text(DEFAULT_INSTRUCTION))
            for loaded in models.values():
                loaded.compile_for_inference(instruction_tokens=tokens, max_new_tokens=max_new_tokens, progress=False)
        with tqdm(total=len(names) * (samples + 1), unit="sample") as bar:
            runs = run_precisions(models, samples, max_new_tokens, bar)
        about = environment(models[REFERENCE])
        records = [run.record(runs[0]) for run in runs]
        typer.echo(precision_table(records, samples))
        size = f"{about['parameters'] / 1e6:.1f} M parameters"
        typer.echo(f"{model}, {size}, {'compiled, ' if compiled else ''}{about['device']}, {samples} pictures")
        if output is not None:
            kept = {name: about[name] for name in ("device", "threads", "parameters", "python", "torch", "instructvla")}
            record = {"model": model, "environment": kept | {"compiled": compiled}, "samples": samples, "rows": records}
            output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
