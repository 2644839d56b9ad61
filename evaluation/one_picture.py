"""One picture and one instruction in; the response, the action chunk and a picture of both out.

    instructvla ask --image kitchen.png --instruction "put the spoon on the towel" --model FOLDER

Without `--model` it runs the nano preset with random weights, without `--image` a drawn tabletop.
"""

import os
import textwrap
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image, ImageOps, UnidentifiedImageError
from safetensors import SafetensorError
from transformers import AutoModel

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.demo_scene import draw_tabletop_scene

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Images = Image.Image | dict[str, Image.Image]

DEFAULT_INSTRUCTION = "put the spoon on the towel"
DEFAULT_OUTPUT = Path("outputs/answer.png")
UNTRAINED_NOTE = "untrained weights (the nano preset, random): words and motion mean nothing"
PANEL_OF_UNIT = {"m": "translation", "rad": "rotation"}

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Answer:
    """What one call gave. `actions`: `(horizon, action_dim)`, physical units; `control_rate_hz` where it is known."""

    instruction: str
    response: str | None
    actions: np.ndarray
    action_names: Sequence[str]
    action_units: Sequence[str]
    gripper_dims: Sequence[int]
    control_rate_hz: float | None
    seconds: float
    device: str
    note: str | None = None

    def report(self) -> str:
        """The lines that the command prints."""
        horizon = len(self.actions)
        span = f"{horizon} steps"
        if self.control_rate_hz:
            span += f" at {self.control_rate_hz:g} Hz, {horizon / self.control_rate_hz:.2f} s of motion"
        words = "(acts without words)" if self.response is None else one_line(self.response) or "(empty)"
        lines = [
            f"instruction  {one_line(self.instruction)}",
            f"response     {words}",
            f"chunk        {span}",
            f"time         {self.seconds:.3f} s for this call on {self.device}",
            "",
            action_table(self.actions, self.action_names, self.action_units),
        ]
        return "\n".join([f"NOTE         {self.note}", *lines] if self.note else lines)


def ask(
    model: Any,
    images: Images,
    instruction: str = DEFAULT_INSTRUCTION,
    state: Sequence[float] | None = None,
    unnorm_key: str | None = None,
    think: bool | None = None,
    seed: int = 0,
    output: Path = DEFAULT_OUTPUT,
    note: str | None = None,
) -> Answer:
    """Asks an InstructVLA model once and saves the picture at `output`.

    `images`: one picture, or one for each named camera; `state`: `(state_dim,)`, physical units; `seed`: of the flow's
    starting noise; `note`: a caution that the report and the picture show. Raises `ValueError` for a bad request, and
    writes nothing then.
    """
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    answer = model.generate_action(
        images, instruction, state=state, unnorm_key=unnorm_key, think=think, generator=generator
    )
    seconds = time.perf_counter() - start
    processor = model.processor
    result = Answer(
        instruction=instruction,
        response=answer.response[0],
        actions=answer.actions[0].numpy(),
        action_names=processor.action_names,
        action_units=processor.action_units,
        gripper_dims=processor.gripper_dims,
        control_rate_hz=processor.control_rate_hz.get(processor.resolve_unnorm_key(unnorm_key)),
        seconds=seconds,
        device=str(model.device),
        note=note,
    )
    save_picture(draw_result(images, result), output)
    return result


def load_model(name: str | None, revision: str | None = None) -> Any:
    """The model of a folder or Hub repository in eval mode; for None the nano preset with random weights."""
    if name is None:
        from instructvla.nano import untrained_nano

        return untrained_nano(seed=0)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name} holds no model: it has no config.json. Give a folder that save_pretrained wrote")
    if not Path(name).is_dir():
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise ValueError(f"{name} is neither a folder nor the name of a Hub repository") from error
    try:
        pinned = {} if revision is None else {"revision": revision}
        model = AutoModel.from_pretrained(name, trust_remote_code=True, **pinned)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ValueError(f"no model could be loaded from {name}: {error}") from error
    if not hasattr(model, "generate_action"):
        raise ValueError(f"{name} holds a {type(model).__name__}, which does not act. Give an InstructVLA checkpoint")
    return model.eval()


def read_images(arguments: Sequence[str]) -> Images:
    """The pictures of `--image`: one FILE, or a NAME=FILE for each camera; the drawn tabletop when there is none."""
    if not arguments:
        return draw_tabletop_scene()
    if len(arguments) == 1 and (Path(arguments[0]).exists() or "=" not in arguments[0]):
        return read_image(arguments[0])
    images = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not (name and equals and file):
            raise ValueError(
                f"--image {argument} names no camera. With several cameras give --image NAME=FILE for each"
            )
        if name in images:
            raise ValueError(f"camera {name} is given twice. Give one --image {name}=FILE")
        images[name] = read_image(file)
    return images


def read_image(file: str) -> Image.Image:
    """A picture file, upright and decoded completely, so that a cut-off file fails here."""
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise ValueError(f"the image {file} does not exist") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is not an image. Give a PNG, JPEG or another picture file") from error
    except Exception as error:  # Pillow's decoders share no class for a broken file
        raise ValueError(f"the image {file} cannot be read: {error}") from error


def action_table(actions: np.ndarray, names: Sequence[str], units: Sequence[str]) -> str:
    """`actions`, `(horizon, action_dim)`, as aligned columns under their names and units."""
    rows = [[f"{value:+.4f}" for value in row] for row in actions]
    columns = list(zip(names, units, *rows, strict=True))
    columns.insert(0, ("step", "", *(str(step) for step in range(len(rows)))))
    widths = [max(map(len, column)) for column in columns]
    lines = zip(
        *([cell.rjust(width) for cell in column] for column, width in zip(columns, widths, strict=True)), strict=True
    )
    return "\n".join("  ".join(line) for line in lines)


def draw_result(images: Images, result: Answer) -> "Figure":
    """The frames beside one panel per kind of action, under the instruction and the response."""
    from matplotlib.figure import Figure

    frames = images if isinstance(images, Mapping) else {"": images}
    panels = _panels(result)
    figure = Figure(figsize=(11, 5.6), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    for axes, (name, image) in zip(left.subplots(len(frames), squeeze=False).flat, frames.items(), strict=True):
        axes.imshow(image.convert("RGB"))
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_axis_off()
    rows = right.subplots(len(panels), sharex=True, squeeze=False).flat
    for axes, (label, dims) in zip(rows, panels.items(), strict=True):
        _draw_panel(axes, label, dims, result)
    axes.set_xlabel("step")
    right.align_ylabels()
    if result.control_rate_hz:
        rate = result.control_rate_hz
        top = right.axes[0].secondary_xaxis("top", functions=(lambda step: step / rate, lambda second: second * rate))
        top.set_xlabel(f"seconds, at {rate:g} Hz")
    lines = [f"“{result.instruction}”", f"→ “{result.response}”" if result.response else "", result.note or ""]
    title = "\n".join(textwrap.fill(one_line(line), 100, max_lines=3, placeholder=" …") for line in lines if line)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def save_picture(figure: "Figure", path: Path) -> None:
    """Writes beside `path`, then renames: `path` holds the old picture or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with warnings.catch_warnings(), partial.open("wb") as file:
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # an emoji becomes a box
                figure.savefig(file, format=path.suffix[1:].lower())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"the picture {path} cannot be written: {error.strerror}") from error


def check_request(instruction: str, output: Path) -> None:
    """Refuses what is bound to fail, before a model is loaded: nothing to do, or no place for the picture."""
    if not instruction.strip():
        raise ValueError(f'the instruction is empty. Say what to do, for example --instruction "{DEFAULT_INSTRUCTION}"')
    check_picture(output)


def check_picture(output: Path, option: str = "--output") -> None:
    """Refuses (ValueError) a place or a format in which no picture can be written; `option` names it."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ValueError("the picture needs matplotlib: pip install 'instructvla[eval]'") from error
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if output.suffix[1:].lower() not in formats:
        raise ValueError(
            f"{option} {output} ends in none of the known picture formats: {', '.join(formats)}. Try answer.png"
        )
    if output.is_dir():
        raise ValueError(f"{option} {output} is a folder. Give a file, for example {output / 'answer.png'}")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {output} cannot be written: {folder} is not a folder that you may write to")


def _panels(result: Answer) -> dict[str, list[int]]:
    """Dimensions that share a unit share a panel; grippers have their own."""
    panels: dict[str, list[int]] = {}
    for dim, unit in enumerate(result.action_units):
        kind = "gripper" if dim in result.gripper_dims else PANEL_OF_UNIT.get(unit, result.action_names[dim])
        panels.setdefault(f"{kind}\n({unit})", []).append(dim)
    return panels


def _draw_panel(axes: "Axes", label: str, dims: Sequence[int], result: Answer) -> None:
    gripper = label.startswith("gripper")
    style = "steps-mid" if gripper else "default"
    for dim in dims:
        axes.plot(
            result.actions[:, dim], "o-", drawstyle=style, markersize=3, linewidth=1.4, label=result.action_names[dim]
        )
    if gripper:
        axes.set_ylim(min(0, result.actions[:, dims].min()) - 0.15, max(1, result.actions[:, dims].max()) + 0.15)
    else:
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_ylabel(label, fontsize=9, parse_math=False)
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False, ncols=1 + len(dims) // 9)


def one_line(text: str) -> str:
    """The text on one line; what a terminal would obey or could not show is written as its escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def parse_state(text: str | None) -> list[float] | None:
    """`"0.1,-0.2"` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--state {text} is not a list of numbers. Give one number per dimension: 0.1,-0.2,0.3"
        ) from error


@app.command()
def main(
    image: Annotated[list[str] | None, typer.Option(help="FILE, or NAME=FILE once for each camera.")] = None,
    instruction: Annotated[str, typer.Option(help="What the robot is asked to do.")] = DEFAULT_INSTRUCTION,
    model: Annotated[str | None, typer.Option(help="Folder or Hub repository; default: nano, untrained.")] = None,
    output: Annotated[Path, typer.Option(help="Where the picture is saved.")] = DEFAULT_OUTPUT,
    state: Annotated[str | None, typer.Option(help="Robot state in physical units: 0.1,-0.2,…")] = None,
    unnorm_key: Annotated[str | None, typer.Option(help="Which of the model's statistics to use.")] = None,
    think: Annotated[bool | None, typer.Option(help="Answer in words first, or not; default: as trained.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
) -> None:
    """What the model says and does for one picture and one instruction."""
    with errors_on_stderr():
        images, robot_state = read_images(image or []), parse_state(state)
        check_request(instruction, output)
        result = ask(
            load_model(model),
            images,
            instruction,
            robot_state,
            unnorm_key,
            think,
            seed,
            output,
            note=None if model else UNTRAINED_NOTE,
        )
    typer.echo(result.report())
    typer.echo(f"\npicture      {output}")


if __name__ == "__main__":
    app()
