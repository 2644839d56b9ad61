"""`instructvla draft-mapping`: a first field mapping from what a dataset's metadata tell, for a person to check."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from instructvla.command_errors import errors_on_stderr
from instructvla.training.data.episodes import BadEpisodeError, RawEpisode, RecordedField
from instructvla.training.data.field_mapping import FieldMapping, MappingError, read_mapping, shipped_mappings
from instructvla.training.data.gripper_conventions import GRIPPER_CONVENTIONS
from instructvla.training.data.readers import detect_format, open_raw
from instructvla.training.data.vla_it import staged_file

ACTIONS = ("action", "actions")
STATES = tuple(f"{prefix}{name}" for prefix in ("observation/", "observation.", "") for name in ("state", "proprio"))
INSTRUCTIONS = ("task", "language_instruction", "natural_language_instruction", "instruction")
CONVENTIONS = ("open_is_one", "open_is_one_signed")  # tried on a gripper, in this order
PLACEHOLDER_RATE = 10  # Hz
TRIED = 20  # episodes, until one can be read
WIDTH = 110  # characters of a line

Convention = Callable[[str, int], tuple[str | None, str]]  # field and column of a gripper → its convention, and a note


@dataclass(frozen=True)
class Columns:
    """Some columns of one field.

    Args:
        field: its name.
        dims: which of its columns.
        names: of them.
        gripper: the convention of a gripper; None for anything else.
        note: for the person who checks.
    """

    field: str
    dims: tuple[int, ...]
    names: tuple[str, ...]
    gripper: str | None = None
    note: str = ""

    def line(self, with_dims: bool) -> str:
        part: dict[str, Any] = {"field": self.field}
        part |= {"dims": list(self.dims)} if with_dims else {}
        part |= {"gripper": self.gripper} if self.gripper else {}
        return f"    - {flow(part)}{comment(self.note)}"


def draft_mapping(source: str | Path, split: str = "train", revision: str | None = None) -> str:
    """The YAML text of a first mapping; `read_mapping` accepts it as it is.

    Args:
        source: RLDS folder, LeRobot folder or LeRobot dataset on the Hub.
        split: of RLDS.
        revision: of a Hub dataset.

    Raises:
        ValueError: no such source, a prepared one, or one without pictures or actions.
    """
    kind = detect_format(source, revision)
    if kind == "prepared":
        raise ValueError(f"{source} is prepared: it has its mapping already, and needs no other.")
    raw = open_raw(source, kind, split, revision)
    fields = list(raw.fields)
    actions = vector_columns(fields, ACTIONS, partial(gripper_convention, raw))
    cameras = camera_fields(fields)
    for what, found in (("an action", actions), ("pictures", cameras)):
        if not found:
            known = ", ".join(names_of(fields)[0])
            raise ValueError(
                f"{source} has no field that looks like {what}: write the mapping by hand. It has {known}."
            )
    name = dataset_name(raw.folder if kind == "RLDS" else source)
    lines = [
        f"# A first mapping of {name} ({kind}), drafted by `instructvla draft-mapping` from its metadata.",
        "# Check each line marked CHECK: metadata tell neither units nor conventions. All keys: docs/field_mapping.md.",
        *shipped_hints(fields),
        f"dataset: {flow(name)}{comment('CHECK: key of its statistics')}",
        rate_line(raw.layout.fps if kind == "LeRobot" else None),
        *camera_lines(cameras, fields),
        *vector_lines("state", vector_columns(fields, STATES), fields),
        *vector_lines("action", actions, fields),
        *text_lines(fields),
    ]
    text = "\n".join(lines) + "\n"
    FieldMapping.from_dict(yaml.safe_load(text), "the draft").require_fields(str(source), *names_of(fields))
    return text


def names_of(fields: Sequence[RecordedField]) -> tuple[list[str], list[str]]:
    """Names of the fields of the steps, and of those of the whole episode."""
    of_steps = [field.name for field in fields if field.of_steps]
    return of_steps, [field.name for field in fields if not field.of_steps]


def vector_columns(
    fields: Sequence[RecordedField], wanted: Sequence[str], convention: Convention | None = None
) -> list[Columns]:
    """The columns of an action or a state: of the field with such a name, or of all fields below it.

    Args:
        wanted: names; the first that is there counts.
        convention: of a gripper, where grippers shall be told apart.
    """
    usable = [field for field in fields if field.kind == "number" and field.of_steps and size_of(field)]
    for name in wanted:
        below = (f"{name}/", f"{name}.")
        found = [field for field in usable if field.name == name]
        found = found or [field for field in usable if field.name.startswith(below) and "terminate" not in field.name]
        if found:
            return [columns for field in found for columns in split_grippers(field, convention)]
    return []


def size_of(field: RecordedField) -> int | None:
    """Columns of one step's value; None where they differ, or form a table."""
    return None if len(field.shape) > 1 or None in field.shape else int(np.prod(field.shape))


def split_grippers(field: RecordedField, convention: Convention | None) -> Iterator[Columns]:
    """The field's columns in their order, each gripper by itself."""
    last, size = last_name(field.name), size_of(field)
    names = field.names or ((last,) if size == 1 else tuple(f"{last}_{dim}" for dim in range(size)))
    grippers = [dim for dim, name in enumerate(names) if convention is not None and "gripper" in name.lower()]
    start = 0
    for dim in [*grippers, size]:
        if dim > start:
            yield Columns(field.name, tuple(range(start, dim)), names[start:dim])
        if dim < size:
            yield Columns(field.name, (dim,), (names[dim],), *convention(field.name, dim))
        start = dim + 1


def gripper_convention(raw: Any, field: str, dim: int) -> tuple[str | None, str]:
    """A convention that the values of an episode allow, and what is to be checked."""
    if (example := first_episode(raw)) is None:
        return None, "CHECK: its name says gripper, set its convention; no episode could be read"
    values = np.asarray(example.steps[field], np.float32).reshape(len(example.steps[field]), -1)[:, dim]
    for name in CONVENTIONS:
        with suppress(ValueError):
            GRIPPER_CONVENTIONS[name](values)
            return name, "CHECK: its name says gripper; is the larger value open?"
    span = f"{values.min():g} to {values.max():g}"
    return None, f"CHECK: its name says gripper, but its values span {span}; give `scale` and `gripper`"


def first_episode(raw: Any) -> RawEpisode | None:
    """The first of some episodes that can be read, without pictures where that spares work."""
    numbers = raw.without_pictures() if hasattr(raw, "without_pictures") else raw
    for index in range(min(len(numbers), TRIED)):
        with suppress(BadEpisodeError):
            return numbers[index]
    return None


def camera_fields(fields: Sequence[RecordedField]) -> dict[str, str]:
    """Camera → field; the first that is not on a wrist is "primary", depth maps are left out."""
    pictures = [field for field in fields if field.kind == "picture" and field.of_steps and not field.shape]
    colour = sorted(field.name for field in pictures if not is_depth(field))
    at_wrist = [name for name in colour if re.search("wrist|hand", last_name(name).lower())]
    first = next((name for name in colour if name not in at_wrist), None) or next(iter(colour), None)
    cameras = {"primary": first} if first else {}
    for name in colour:
        if name != first:
            short = "wrist" if name in at_wrist and "wrist" not in cameras else without_spaces(last_name(name))
            cameras[short if short not in cameras else without_spaces(name)] = name
    return cameras


def without_spaces(name: str) -> str:
    """As a camera must be called."""
    return "_".join(name.split())


def is_depth(field: RecordedField) -> bool:
    return "depth" in f"{field.name} {field.note}".lower()


def camera_lines(cameras: Mapping[str, str], fields: Sequence[RecordedField]) -> Iterator[str]:
    yield "# CHECK: the names are those of the model's cameras; leave out the cameras that it does not see."
    yield "cameras:"
    yield from (f"  {flow(camera)}: {flow(name)}" for camera, name in cameras.items())
    depth_maps = [field.name for field in fields if field.kind == "picture" and is_depth(field)]
    yield from (f"  # left out, a depth map: {name}" for name in depth_maps)


def vector_lines(key: str, columns: Sequence[Columns], fields: Sequence[RecordedField]) -> Iterator[str]:
    """The state or the action, with what the format says about its fields."""
    if not columns:
        numbers = [f"{field.name} {list(field.shape)}" for field in fields if field.kind == "number" and field.of_steps]
        yield from wrapped(f"# CHECK: no field looks like the {key}. Fields of numbers: {', '.join(numbers)}")
        return
    sources = dict.fromkeys(part.field for part in columns)
    told = {field.name: " ".join(field.note.split()) for field in fields if field.note and field.name in sources}
    for name, note in told.items():
        yield from wrapped(f'# The format describes {name} as "{note}"')
    yield f"{key}:"
    yield "  parts:"
    is_split = len(columns) > len(sources) or any(part.gripper for part in columns)
    yield from (part.line(with_dims=is_split) for part in columns)
    yield from wrapped(f"  names: {flow([name for part in columns for name in part.names])}")
    yield "  # CHECK: m, rad, …; values in other units need a `scale`"
    units = [["open fraction" if part.gripper else "unknown"] * len(part.names) for part in columns]
    yield from wrapped(f"  units: {flow([unit for part in units for unit in part])}")


def rate_line(told: float | None) -> str:
    if told is not None:
        return f"# control_rate_hz: the format tells it, {told:g}"
    note = f"CHECK: the format does not tell it, {PLACEHOLDER_RATE} is a placeholder"
    return f"control_rate_hz: {PLACEHOLDER_RATE}{comment(note)}"


def text_lines(fields: Sequence[RecordedField]) -> Iterator[str]:
    """Instruction, episode id and file path."""
    texts = [field.name for field in fields if field.kind == "text"]
    named = [name for wanted in INSTRUCTIONS for name in texts if last_name(name) == wanted]
    named += [name for name in texts if "instruction" in name]
    yield f"instruction: {flow(named[0])}" if named else "# CHECK: no field looks like an instruction"
    for key, wanted in (("episode_id", ("episode_id", "episode_index")), ("file_path", ("file_path",))):
        found = [name for name in names_of(fields)[1] if last_name(name) in wanted]
        if found:
            yield f"{key}: {flow(found[0])}"


def shipped_hints(fields: Sequence[RecordedField]) -> Iterator[str]:
    """Shipped mappings all of whose fields are there."""
    for name in shipped_mappings():
        try:
            read_mapping(name).require_fields("", *names_of(fields))
        except MappingError:
            continue
        yield f"# The shipped mapping `{name}` finds all its fields here, too: try it first."


def dataset_name(source: str | Path) -> str:
    """A key from the last part of the source's name that is no version."""
    parts = Path(source).resolve().parts if Path(source).is_dir() else Path(source).parts
    named = [part for part in parts if not re.fullmatch(r"[\d.]+", part)]
    return re.sub(r"[^\w.-]+", "_", named[-1])


def last_name(name: str) -> str:
    return re.split(r"[/.]", name)[-1]


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()


def comment(note: str) -> str:
    return f"  # {note}" if note else ""


def wrapped(line: str) -> Iterator[str]:
    """A comment, or a list of YAML, broken at spaces where it is long."""
    start = re.match(r"\s*(# )?", line)[0]
    go_on = start if "#" in start else f"{start}  "
    while len(line) > WIDTH and (place := line.rfind(" ", len(go_on), WIDTH)) > 0:
        yield line[:place]
        line = f"{go_on}{line[place + 1 :]}"
    yield line


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[str, typer.Argument(help="RLDS or LeRobot folder, or LeRobot dataset on the Hub.")],
    output: Annotated[Path, typer.Option(help="YAML file to write.", show_default=False)],
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
) -> None:
    """Write a first field mapping of a dataset, which a person must check, from what its metadata tell."""
    with errors_on_stderr():
        if output.exists():
            raise ValueError(f"{output} exists; give another --output, as it may hold what you corrected.")
        text = draft_mapping(source, split, revision)
        with staged_file(output) as file:
            file.write(text.encode())
    typer.echo(f"written to {output}: {text.count('CHECK:')} places to check; docs/field_mapping.md explains the keys")


if __name__ == "__main__":
    app()
