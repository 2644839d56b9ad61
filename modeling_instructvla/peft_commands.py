"""`instructvla export-peft`, `import-peft` and `merge`: adapters of checkpoint folders."""

from pathlib import Path
from typing import Annotated

import typer

from instructvla.checkpoint_folder import checkpoint_folder
from instructvla.command_errors import errors_on_stderr, writing_to
from instructvla.merged_expert import merge_expert
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.peft_adapters import export_peft, load_expert
from instructvla.peft_files import read_peft_adapter

export_app = typer.Typer(add_completion=False)
import_app = typer.Typer(add_completion=False)
merge_app = typer.Typer(add_completion=False)

Model = Annotated[str, typer.Argument(help="InstructVLA checkpoint: a folder or Hub repository.", show_default=False)]
Expert = Annotated[str, typer.Option(help="language or action; stage 1 has action alone.", show_default=False)]
Output = Annotated[Path, typer.Option(help="Folder to write.", show_default=False)]


def load_checkpoint(name: str, *outputs: Path | None) -> InstructVLAForConditionalGeneration:
    """The model of a folder or Hub repository, loaded once the folders to write are known to be others, and no files.

    Raises:
        ValueError: if it can't be loaded, or for an output that is the model's own folder or a file.
    """
    for output in filter(None, outputs):
        if output.exists() and not output.is_dir():
            raise ValueError(f"{output} is a file; give a folder.")
        if output.resolve() == Path(name).resolve():
            raise ValueError(f"{output} holds the model that is read; give another folder.")
    checkpoint_folder(name)
    return InstructVLAForConditionalGeneration.from_pretrained(name)


def millions(model: InstructVLAForConditionalGeneration) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:,.1f} M parameters"


@export_app.command()
def export(
    model: Model,
    expert: Expert,
    output: Output,
    base_output: Annotated[Path | None, typer.Option(help="Folder for the plain Qwen2 that the adapter fits.")] = None,
) -> None:
    """Write one adaptation expert as a PEFT adapter folder."""
    with errors_on_stderr():
        vla = load_checkpoint(model, output, base_output)
        with writing_to(output):
            adapter = export_peft(vla, expert, output, base_output)
    layers, config = len(adapter.matrices) // 2, adapter.config
    base = "" if base_output is None else f"; its base model in {base_output}"
    typer.echo(f"{output}: {expert} expert, {layers} linear layers, rank {config.r}, alpha {config.lora_alpha}{base}")


@import_app.command("import")
def import_adapter(
    model: Model,
    adapter: Annotated[str, typer.Argument(help="PEFT adapter: a folder or Hub repository.", show_default=False)],
    expert: Expert,
    output: Output,
) -> None:
    """Write the model with one expert replaced by a PEFT adapter."""
    with errors_on_stderr():
        matrices = read_peft_adapter(adapter)
        vla = load_checkpoint(model, output)
        load_expert(vla, expert, matrices)
        with writing_to(output):
            vla.save_pretrained(output, allow_no_statistics=True)  # it has those of the source, if any
    typer.echo(f"{output}: {expert} expert from {adapter}, rank {matrices.config.r}, scaling {matrices.scaling:g}")


@merge_app.command()
def merge(model: Model, output: Output) -> None:
    """Write a stage-1 model with its expert merged into the base weights."""
    with errors_on_stderr():
        vla = load_checkpoint(model, output)
        merged = merge_expert(vla)
        with writing_to(output):
            merged.save_pretrained(output, allow_no_statistics=True)
    typer.echo(f"{output}: action expert merged, {millions(merged)} instead of {millions(vla)}")
