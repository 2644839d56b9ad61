"""Checks of a checkpoint's files: is everything there and whole, does it fit the model, are the numbers sane."""

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.dynamic_module_utils import get_relative_imports

from instructvla.configuration_instructvla import AUTO_MAP, InstructVLAConfig
from instructvla.evaluation.doctor_lines import Line, Lines, counted, finding, named
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.plain_files import read_json
from instructvla.safetensors_folder import INDEX, SINGLE_FILE, read_weight_map

COPY_AGAIN = "copy or download the checkpoint again"
TOKENIZERS = ({"tokenizer.json"}, {"vocab.json", "merges.txt"})
FRESH_PARTS = (".lora_B", ".film_scale.", ".film_shift.")  # these start at zero, as biases do

Shape = tuple[int, ...]


def json_fields(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} without the file, which has a finding of its own.

    Raises:
        ValueError: for what is no JSON object.
    """
    return read_json(path) if path.is_file() else {}


def check_files(folder: Path) -> Lines:
    """Processor and tokenizer are there. The weights have a check of their own."""
    names = {path.name for path in folder.iterdir()}
    missing = [name for name in ("processor_config.json", "tokenizer_config.json") if name not in names]
    if not any(files <= names for files in TOKENIZERS):
        missing.append("tokenizer.json")
    for name in missing:
        yield finding("files", f"{name} is missing", "save the processor again with processor.save_pretrained(FOLDER)")
    if not missing:
        yield Line("ok", "files", "configuration, processor and tokenizer are there")


def check_code(folder: Path) -> Lines:
    """The remote code that `auto_map` names is there, with all that it imports."""
    with_code, without_code = "load it with the package and save it again", "where the package is not installed"
    unnamed = [name for name in ("config.json", "processor_config.json") if not code_references(folder / name)]
    if unnamed:
        text = f"no auto_map in {' and '.join(unnamed)}: the checkpoint does not load {without_code}"
        yield finding("code", text, with_code)
    needed, missing = needed_code(folder)
    if missing:
        yield finding("code", f"{named(missing)} missing: the checkpoint does not load {without_code}", with_code)
    elif not unnamed:
        yield Line("ok", "code", f"{len(needed)} files, all that the Auto classes need without the package")
    if changed := [name for name in needed if differs_from_installed(folder / name)]:
        yield Line("note", "code", f"differs from the installed package, which is what is examined: {named(changed)}")


def code_references(path: Path) -> list[str]:
    """The classes that a configuration names; for a missing or unreadable one, which has a finding, our defaults."""
    try:
        content = json_fields(path)
    except ValueError:
        content = {}
    auto_map = content.get("auto_map") if content else AUTO_MAP
    return [str(reference) for reference in auto_map.values()] if isinstance(auto_map, dict) else []


def needed_code(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the code files that the checkpoint needs and has, and of those that it lacks."""
    references = {
        reference for name in ("config.json", "processor_config.json") for reference in code_references(folder / name)
    }
    waiting = {f"{reference.split('.')[0]}.py" for reference in references if "--" not in reference}  # others' code
    found, missing = set(), set()
    while waiting:
        name = waiting.pop()
        if (folder / name).is_file():
            found.add(name)
            waiting |= {f"{module}.py" for module in get_relative_imports(folder / name)} - found - missing
        else:
            missing.add(name)
    return sorted(found), sorted(missing)


def differs_from_installed(path: Path) -> bool:
    """Whether a code file of a checkpoint is not the installed package's of that name."""
    specs = (find_spec(f"{package}.{path.stem}") for package in ("instructvla", "instructvla.processing"))
    origins = [Path(spec.origin) for spec in specs if spec is not None and spec.origin]
    return not any(origin.read_bytes() == path.read_bytes() for origin in origins)


def check_weights(folder: Path, config: InstructVLAConfig | None) -> Lines:
    """All weight files are there and whole, and hold exactly the model's tensors."""
    if not (folder / INDEX).is_file() and not (folder / SINGLE_FILE).is_file():
        yield finding("weights", f"neither {SINGLE_FILE} nor {INDEX} is there", COPY_AGAIN)
        return
    weight_map = read_weight_map(folder)
    if weight_map is not None and (folder / SINGLE_FILE).is_file():
        yield finding("weights", f"both {SINGLE_FILE} and {INDEX} are there", "delete the one that is stale")
    files = sorted(set(weight_map.values())) if weight_map is not None else [SINGLE_FILE]
    shapes: dict[str, Shape] = {}
    unread: set[str] = set()
    for name in files:
        try:
            header = read_header(folder / name)
        except ValueError as error:
            unread.add(name)
            yield finding("weights", str(error), COPY_AGAIN)
            continue
        shapes |= header
        if weight_map is not None:
            indexed = {tensor for tensor, file in weight_map.items() if file == name}
            yield from compare_with_index(name, set(header), indexed)
    lost = {tensor for tensor, file in (weight_map or {}).items() if file in unread}
    if config is not None and (weight_map is not None or not unread):
        yield from compare_with_model(shapes, lost, config)
    if not unread:
        yield Line("ok", "weights", f"{counted(len(files), 'file')}, whole, with {len(shapes)} tensors")


def read_header(path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors in a safetensors file, without reading them.

    Raises:
        ValueError: if the file is missing, truncated, too long, or no safetensors file.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{path.name} is truncated, or no safetensors file: {size} bytes do not hold its header")
        try:
            entries = json.loads(file.read(length))
            entries.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name} has a corrupt header: {type(error).__name__}: {error}") from error
    if 8 + length + end != size:
        raise ValueError(f"{path.name} has {size} bytes, but its header promises {8 + length + end}")
    return shapes


def compare_with_index(file: str, held: set[str], indexed: set[str]) -> Lines:
    if absent := sorted(indexed - held):
        yield finding("weights", f"{file} lacks {named(absent)}, which the index puts there", COPY_AGAIN)
    if extra := sorted(held - indexed):
        yield finding("weights", f"{file} holds {named(extra)}, which the index does not know", COPY_AGAIN)


def compare_with_model(shapes: Mapping[str, Shape], lost: set[str], config: InstructVLAConfig) -> Lines:
    """Names and shapes against those of the model that the configuration describes; `lost` are in unreadable shards."""
    with torch.device("meta"):
        model = InstructVLAForConditionalGeneration(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    remedy = "convert or save the checkpoint again, with the configuration it was trained with"
    if missing := sorted(expected.keys() - shapes.keys() - lost):
        yield finding("weights", f"{counted(len(missing), 'tensor')} missing: {named(missing)}", remedy)
    if unexpected := sorted(shapes.keys() - expected.keys()):
        yield finding("weights", f"{counted(len(unexpected), 'tensor')} unexpected: {named(unexpected)}", remedy)
    mis_sized = [
        f"{name} is {shapes[name]}, the model needs {expected[name]}"
        for name in sorted(expected.keys() & shapes.keys())
        if shapes[name] != expected[name]
    ]
    if mis_sized:
        yield finding("weights", f"{counted(len(mis_sized), 'tensor')} of another size: {named(mis_sized, 2)}", remedy)


@dataclass
class Census:
    """What one pass over all values found. `loras`: expert → whether any of its B is not zero."""

    tensors: int = 0
    parameters: int = 0
    dtypes: Counter = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    loras: dict[int, bool] = field(default_factory=dict)
    film: list[bool] = field(default_factory=list)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        self.tensors += 1
        self.parameters += tensor.numel()
        self.dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
        if tensor.numel() == 0:
            return
        low, high = (extreme.item() for extreme in tensor.aminmax())  # NaN and infinity reach them: one pass, no copy
        if not abs(low) + abs(high) < float("inf"):
            self.broken.append(describe_broken(name, tensor))
        is_zero = low == high == 0
        if ".lora_B" in name and tensor.ndim == 3:
            for expert, part in enumerate(tensor.unbind(1)):  # (out, experts, rank)
                self.loras[expert] = self.loras.get(expert, False) or bool(part.any())
        elif ".film_" in name:
            self.film.append(not is_zero)
        if is_zero and not name.endswith("bias") and not any(part in name for part in FRESH_PARTS):
            self.dead.append(name)


def describe_broken(name: str, tensor: torch.Tensor) -> str:
    counts = {"NaN": int(tensor.isnan().sum()), "infinite": int(tensor.isinf().sum())}
    return f"{name} ({', '.join(f'{n} {kind}' for kind, n in counts.items() if n)} of {tensor.numel()} values)"


def stream_tensors(paths: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors, one in memory at a time."""
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                yield name, file.get_tensor(name)


def check_values(folder: Path, config: InstructVLAConfig | None) -> Lines:
    """No NaN, no infinity, and no zeros but in biases and in what starts at zero: B of the LoRA experts, and FiLM."""
    census = Census()
    for name, tensor in stream_tensors(readable_weights(folder)):
        census.add(name, tensor)
    if census.broken:
        text = f"NaN or infinity in {counted(len(census.broken), 'tensor')}: {named(census.broken, 3)}"
        yield finding("values", text, "go back to an earlier checkpoint")
    if census.dead:
        text = f"{counted(len(census.dead), 'tensor')} all zero: {named(census.dead)}"
        yield finding("zeros", text, "convert the checkpoint again: these weights were never loaded or trained")
    if not census.tensors:
        yield Line("skipped", "values", "no weight file can be read")
    elif not census.broken:
        dtypes = ", ".join(census.dtypes)
        text = f"{census.tensors} tensors, {census.parameters / 1e6:.1f} M parameters, {dtypes}, no NaN or infinity"
        yield Line("ok", "values", text)
    yield from fresh_parts(census, config)


def readable_weights(folder: Path) -> list[Path]:
    """The whole weight files; what is wrong with the others, `check_weights` says."""
    whole = []
    with suppress(ValueError):
        weight_map = read_weight_map(folder)
        names = [SINGLE_FILE] if weight_map is None else sorted(set(weight_map.values()))
        for name in names:
            with suppress(ValueError):
                read_header(folder / name)
                whole.append(folder / name)
    return whole


def fresh_parts(census: Census, config: InstructVLAConfig | None) -> Lines:
    """Parts that training has not touched yet: right in a new model, so no finding."""
    names = config.adapter_config.expert_names if config is not None else []
    for expert, is_live in census.loras.items():
        if not is_live:
            label = names[expert] if expert < len(names) else expert
            yield Line("note", "values", f"the {label} expert's LoRA B is zero: as new, it changes nothing yet")
    if census.film and not any(census.film):
        yield Line("note", "values", "FiLM is zero: as new, the latent action does not steer the expert's vision yet")
