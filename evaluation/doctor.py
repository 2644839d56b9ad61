"""What is wrong with a checkpoint: files, weights, statistics, fit, semantics, versions, and whether the model looks.

    instructvla doctor FOLDER

Prints what is well first, then one line per finding with its remedy. It runs the installed package's code, never the
checkpoint's.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoProcessor, AutoTokenizer
from transformers.utils import logging

from instructvla.checkpoint_folder import checkpoint_folder
from instructvla.command_errors import errors_on_stderr
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.evaluation.doctor_files import check_code, check_files, check_values, check_weights, json_fields
from instructvla.evaluation.doctor_fit import check_fit, check_semantics, check_statistics_of, check_versions
from instructvla.evaluation.doctor_lines import Line, Lines, counted, finding, on_one_line
from instructvla.evaluation.doctor_senses import check_senses, neutral_processor
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.processing import InstructVLAProcessor
from instructvla.processing.action_normalization import nearest

REMEDY = "put it right, or save the checkpoint again"
OWN_CODE = {"trust_remote_code": False}  # left out, it would ask at the terminal
CHECKPOINT_FILES = ("*.json", "*.safetensors", "*.py", "*.jinja", "*.txt")

app = typer.Typer(add_completion=False)


class Examination:
    """All checks of one checkpoint folder; `lines` grows with each. A check that breaks does not stop the others."""

    def __init__(self, folder: Path, unnorm_key: str | None = None):
        self.folder, self.unnorm_key = folder, unnorm_key
        self.lines: list[Line] = []

    def run(self, name: str, check: Callable[..., Lines], *arguments: Any) -> None:
        try:
            for line in check(*arguments):
                self.lines.append(line)
        except ValueError as error:
            self.lines.append(finding(name, str(error), REMEDY))
        except torch.OutOfMemoryError as error:
            self.lines.append(finding(name, f"no memory for it: {error}", "examine it with --device cpu"))
        except Exception as error:  # a broken file can fail in any library, and must not hide the other findings
            self.lines.append(finding(name, f"stopped by {type(error).__name__}: {error}", REMEDY))

    def skip(self, name: str, reason: str) -> None:
        self.lines.append(Line("skipped", name, reason))

    def failed(self, *checks: str) -> list[str]:
        """Those of the checks that have a finding."""
        return [name for name in checks if any(line.kind == "FINDING" and line.check == name for line in self.lines)]

    def attempt(self, name: str, load: Callable[[], Any], *causes: str) -> Any:
        """What `load` returns; None and a finding if it fails, or no finding if one of the `causes` already has it."""
        try:
            return load()
        except Exception as error:  # as in `run`
            if self.failed(*causes):
                self.skip(name, f"not loaded, see {', '.join(self.failed(*causes))}")
            else:
                text = f"can't be loaded: {type(error).__name__}: {error}"
                self.lines.append(finding(name, text, REMEDY))
            return None

    def examine(self, device: torch.device) -> None:
        config = self.attempt("config", lambda: InstructVLAConfig.from_pretrained(self.folder))
        self.run("files", check_files, self.folder)
        self.run("code", check_code, self.folder)
        self.run("weights", check_weights, self.folder, config)
        self.run("values", check_values, self.folder, config)
        fields = self.attempt("processor", lambda: json_fields(self.folder / "processor_config.json"))
        if fields:
            self.run("statistics", check_statistics_of, fields, config)
        processor = self.load_processor()
        if config is None:
            self.skip("semantics", "and versions and fit, without a configuration")
        else:
            self.run("semantics", check_semantics, config, (fields or {}).get("action_crop_pct"))
            self.run("versions", check_versions, config)
            if processor is not None:
                self.run("fit", check_fit, processor, config)
        self.try_senses(processor, device)

    def load_processor(self) -> InstructVLAProcessor | None:
        """The processor; without its statistics where these have findings, as they are then no news."""
        if self.failed("processor"):
            return None
        if self.failed("statistics"):
            return self.attempt("processor", lambda: processor_without_statistics(self.folder), "files")
        return self.attempt("processor", lambda: AutoProcessor.from_pretrained(self.folder, **OWN_CODE), "files")

    def try_senses(self, processor: InstructVLAProcessor | None, device: torch.device) -> None:
        broken = self.failed("config", "files", "weights", "values", "processor", "fit")
        if broken or processor is None:
            self.skip("senses", f"the model does not run as it is, see {', '.join(broken)}")
            return
        model = self.attempt("senses", lambda: load_model(self.folder, device))
        if model is None:
            return
        usable = processor.statistics and not self.failed("statistics")
        model.processor = processor if usable else neutral_processor(processor)
        key = (self.unnorm_key or next(iter(processor.statistics))) if usable else None
        self.run("senses", check_senses, model, key)


def processor_without_statistics(folder: Path) -> InstructVLAProcessor:
    fields, _ = InstructVLAProcessor.get_processor_dict(folder)
    fields = {name: value for name, value in fields.items() if name not in ("statistics", "control_rate_hz")}
    return InstructVLAProcessor.from_args_and_dict([AutoTokenizer.from_pretrained(folder, **OWN_CODE)], fields)


def load_model(folder: Path, device: torch.device) -> InstructVLAForConditionalGeneration:
    """The model in its own dtype, but in float32 on a CPU, where bfloat16 is often ten times slower."""
    dtype = torch.float32 if device.type == "cpu" else "auto"
    return InstructVLAForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device)


def open_checkpoint(source: str, unnorm_key: str | None = None) -> Path:
    """The folder of a checkpoint, downloaded if it is on the Hub.

    Raises:
        ValueError: no such folder or repository, no config.json of an InstructVLA model, or an unknown `unnorm_key`.
    """
    folder = checkpoint_folder(source, CHECKPOINT_FILES)
    if unnorm_key is not None:
        check_unnorm_key(folder, unnorm_key)
    return folder


def check_unnorm_key(folder: Path, unnorm_key: str) -> None:
    statistics = json_fields(folder / "processor_config.json").get("statistics")
    keys = list(statistics) if isinstance(statistics, dict) else []
    if unnorm_key not in keys:
        hint = f"; the nearest is {nearest(unnorm_key, keys)!r}" if keys else ""
        raise ValueError(f"unknown --unnorm-key {unnorm_key!r}; the checkpoint has {keys}{hint}")


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without a name CUDA where there is one, else the CPU.

    Raises:
        ValueError: a name that torch does not know or can't use here.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = on_one_line(error).split(". ")[0]
        raise ValueError(f"--device {name} can't be used: {reason}. Give cpu, cuda or cuda:1, or nothing") from error
    return torch.device(name)


@contextmanager
def only_our_lines() -> Iterator[None]:
    """Without transformers' progress bars and warnings, whose causes are findings here."""
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def diagnose(source: str, device: str | None = None, unnorm_key: str | None = None) -> list[Line]:
    """Every check of a checkpoint folder or Hub repository; what is well first, findings last.

    Args:
        device: where the model runs; default: CUDA where there is one.
        unnorm_key: the dataset in whose range the state moves; default: the first.

    Raises:
        ValueError: if there is no checkpoint to examine, or for a device or key that does not exist.
    """
    with only_our_lines():
        chosen = choose_device(device)
        examination = Examination(open_checkpoint(source, unnorm_key), unnorm_key)
        examination.examine(chosen)
    return sorted(examination.lines, key=lambda line: line.kind == "FINDING")


@app.command()
def main(
    checkpoint: Annotated[str, typer.Argument(help="Folder or Hub repository.")],
    device: Annotated[str | None, typer.Option(help="Where the model runs; default: cuda where there is one.")] = None,
    unnorm_key: Annotated[str | None, typer.Option(help="Statistics whose range moves the state.")] = None,
) -> None:
    """Say what is wrong with a checkpoint: exit code 0 without a finding, 1 with findings, 2 without a checkpoint."""
    start = time.perf_counter()
    with errors_on_stderr():
        lines = diagnose(checkpoint, device, unnorm_key)
    for line in lines:
        typer.echo(line)
    findings = sum(line.kind == "FINDING" for line in lines)
    verdict = counted(findings, "finding") if findings else "all is well"
    typer.echo(f"{checkpoint}: {verdict}, {time.perf_counter() - start:.1f} s")
    raise typer.Exit(1 if findings else 0)


if __name__ == "__main__":
    app()
