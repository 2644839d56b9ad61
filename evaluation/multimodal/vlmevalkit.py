"""VLMEvalKit's own run on an InstructVLA model, which is added to the kit's models while it runs.

    python -m instructvla.evaluation.multimodal.vlmevalkit --model MODEL --data MME MMStar --work-dir outputs/vlmevalkit

Everything but the options below goes to the kit's `run.py`: --data, --work-dir, --mode, --reuse, --judge, …
"""

import runpy
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from instructvla.command_errors import errors_on_stderr

INSTALL = "pip install ms-vlmeval, or clone open-compass/VLMEvalKit and pip install -e it"

app = typer.Typer(add_completion=False)


def kit_folder() -> Path:
    """Where the kit's package is.

    Raises:
        ValueError: it is not installed.
    """
    spec = find_spec("vlmeval")
    if spec is None or spec.origin is None:
        raise ValueError(f"VLMEvalKit is not installed: {INSTALL}.")
    return Path(spec.origin).parent


def kit_run(folder: Path) -> Path:
    """The kit's run script: inside the package that the registry has, beside it in a clone.

    Args:
        folder: of the package `vlmeval`.

    Raises:
        ValueError: it is in neither place.
    """
    for script in (folder / "run.py", folder.parent / "run.py"):
        if script.is_file():
            return script
    raise ValueError(f"{folder} holds VLMEvalKit without its run.py; {INSTALL}.")


def run_kit(name: str, arguments: Sequence[str], **options: str | int | bool | None) -> None:
    """Runs the kit in this process.

    Args:
        name: of the model in the kit's result files.
        arguments: of the kit's `run.py`, but for --model.
        options: of `vlmevalkit_model.InstructVLA`.

    Raises:
        ValueError: the kit is not installed, or has a model of this name.
    """
    script = kit_run(kit_folder())
    from vlmeval.config import supported_VLM

    from instructvla.evaluation.multimodal.vlmevalkit_model import InstructVLA

    if name in supported_VLM:
        raise ValueError(f"VLMEvalKit has a model named {name}; give another --name.")
    supported_VLM[name] = partial(InstructVLA, **options)
    sys.argv = [str(script), "--model", name, *arguments]
    runpy.run_path(str(script), run_name="__main__")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def main(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Folder or Hub repository, or nano.")],
    name: Annotated[str, typer.Option(help="Of the model in the kit's result files.")] = "InstructVLA",
    device: Annotated[str | None, typer.Option(help="E.g. cuda:1; default: CUDA where there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16; default: the checkpoint's.")] = None,
    max_tiles: Annotated[int | None, typer.Option(min=1, help="Of a picture; default: as in the paper.")] = None,
    adapters: Annotated[bool, typer.Option(help="Off: the base VLM, as it was before adaptation.")] = True,
) -> None:
    """Runs VLMEvalKit on an InstructVLA model; other options are those of the kit's run.py."""
    with errors_on_stderr():
        run_kit(
            name,
            context.args,
            model_path=model,
            device=device,
            dtype=dtype,
            max_tiles=max_tiles,
            adapters=adapters,
        )


if __name__ == "__main__":
    app()
