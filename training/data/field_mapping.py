"""What the fields of a recording mean: one YAML file per dataset turns each `RawEpisode` into an `Episode`."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from instructvla.configuration_sections import is_camera_name, is_number, is_positive_number, refuse_unknown
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episodes import BadEpisodeError, Episode, RawEpisode, RawReader
from instructvla.training.data.gripper_conventions import GRIPPER_CONVENTIONS
from instructvla.training.data.language_motion import MotionSettings
from instructvla.training.data.recorded_texts import NoTextError, instruction_texts, metadata_text, text_fields

MAPPINGS = Path(__file__).parent / "mappings"
CHANGES = ("difference_to_next",)
METADATA_COLUMNS = ("episode_id", "file_path")


class MappingError(ValueError):
    """A mapping that is wrong in itself, or that does not belong to the data it was given with."""


def shipped_mappings() -> list[str]:
    """Names of the mappings that come with the package."""
    return sorted(path.stem for path in MAPPINGS.glob("*.yaml"))


def read_mapping(mapping: "str | Path | Mapping[str, Any] | FieldMapping") -> "FieldMapping":
    """A mapping by the name of a shipped one, by its YAML file, or from its dictionary.

    Raises:
        MappingError: no such mapping or file, no YAML, or a mapping that is wrong: the message names the key.
    """
    if isinstance(mapping, FieldMapping):
        return mapping
    if isinstance(mapping, Mapping):
        return FieldMapping.from_dict(mapping)
    path = MAPPINGS / f"{mapping}.yaml" if str(mapping) in shipped_mappings() else Path(mapping)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(
            f"Mapping {str(mapping)!r} is neither shipped ({', '.join(shipped_mappings())}) nor a YAML file that can "
            f"be read: {error}"
        ) from error
    except yaml.YAMLError as error:
        raise MappingError(f"Mapping {mapping} is no YAML: {' '.join(str(error).split())}") from error
    return FieldMapping.from_dict(content, f"mapping {mapping}")


@dataclass(frozen=True)
class Part:
    """Some columns of a vector: those of one raw field, or constant zeros.

    Args:
        field: raw field of the steps, (T,) or (T, n).
        dims: which of its columns, in this order; all of them by default.
        zeros: number of constant columns, instead of a field.
        scale: factor to the vector's units, one or one per column; a gripper's, to the values of its convention.
        change: "difference_to_next", the value of the next step minus this one's; the last step has none.
        gripper: name of a convention (`gripper_conventions`) of its only column.
    """

    field: str | None = None
    dims: tuple[int, ...] | None = None
    zeros: int = 0
    scale: float | tuple[float, ...] = 1.0
    change: str | None = None
    gripper: str | None = None

    @classmethod
    def from_dict(cls, given: Any, name: str) -> "Part":
        check_keys(given, cls, name)
        part = cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
        require((part.field is None) != (part.zeros == 0), name, given, "a part with one of field and zeros")
        require(part.field is None or isinstance(part.field, str), f"{name}.field", part.field, "a field's name")
        require(is_count(part.zeros), f"{name}.zeros", part.zeros, "a number of columns")
        dims = part.dims
        require(
            dims is None or isinstance(dims, tuple) and len(dims) > 0 and all(map(is_count, dims)),
            f"{name}.dims",
            dims,
            "a list of columns such as [0, 1, 2]",
        )
        scale = part.scale if isinstance(part.scale, tuple) else (part.scale,)
        require(all(map(is_number, scale)), f"{name}.scale", part.scale, "a number, or one per column")
        require(part.change in (None, *CHANGES), f"{name}.change", part.change, f"one of {', '.join(CHANGES)}")
        require(
            part.gripper in (None, *GRIPPER_CONVENTIONS),
            f"{name}.gripper",
            part.gripper,
            f"one of {', '.join(GRIPPER_CONVENTIONS)}",
        )
        require(part.gripper is None or part.size in (None, 1), f"{name}.dims", part.dims, "one column, the gripper's")
        return part

    @property
    def size(self) -> int | None:
        """Number of columns, None for all those of a field."""
        return self.zeros or (len(self.dims) if self.dims else 1 if self.gripper else None)

    def columns(self, raw: RawEpisode, steps: int) -> np.ndarray:
        """(T, columns) float32; not finite where `change` has no value."""
        if self.field is None:
            return np.zeros((steps, self.zeros), np.float32)
        values = numbers(raw, self.field)
        if self.dims is not None:
            if max(self.dims) >= values.shape[1]:
                raise BadEpisodeError(
                    f"{raw.source}: {self.field} has {values.shape[1]} columns, but the mapping takes {list(self.dims)}"
                )
            values = values[:, list(self.dims)]
        if self.change is not None:
            values = np.vstack([np.diff(values, axis=0), np.full((1, values.shape[1]), np.nan, values.dtype)])
        if isinstance(self.scale, tuple) and len(self.scale) != values.shape[1]:
            raise MappingError(f"{self.field}: there are {len(self.scale)} scales for {values.shape[1]} columns")
        if self.scale != 1.0:
            values = (values * np.asarray(self.scale, np.float64)).astype(np.float32)
        return values if self.gripper is None else self._open_fraction(values, raw)

    def _open_fraction(self, values: np.ndarray, raw: RawEpisode) -> np.ndarray:
        if values.shape[1] != 1:
            raise MappingError(f"{self.field}: a gripper is one column, but the mapping takes {values.shape[1]}")
        try:
            return GRIPPER_CONVENTIONS[self.gripper](values[:, 0]).astype(np.float32)[:, None]
        except ValueError as error:
            raise BadEpisodeError(f"{raw.source}: {self.field} as {self.gripper}: {error}") from error


@dataclass(frozen=True)
class Vector:
    """A state or an action: its parts, and a name and a unit for each of its dimensions."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def from_dict(cls, given: Any, name: str) -> "Vector":
        check_keys(given, cls, name)
        for key in ("parts", "names", "units"):
            require(isinstance(given.get(key), list) and given[key], f"{name}.{key}", given.get(key), "a list")
        names, units = (tuple(str(text) for text in given[key]) for key in ("names", "units"))
        require(len(units) == len(names), f"{name}.units", list(units), f"{len(names)} of them, as there are names")
        parts = tuple(Part.from_dict(part, f"{name}.parts[{number}]") for number, part in enumerate(given["parts"]))
        vector = cls(parts, names, units)
        sizes = [part.size for part in parts]
        if None not in sizes:
            require(
                sum(sizes) == len(names), f"{name}.names", list(names), f"{sum(sizes)}, one per column of the parts"
            )
        elif any(part.gripper for part in parts):
            raise MappingError(f"{name}: give every part its dims, as one of them is a gripper.")
        require(any(part.field for part in parts), f"{name}.parts", given["parts"], "made of at least one field")
        return vector

    @property
    def gripper_dims(self) -> tuple[int, ...]:
        """Places of the grippers among the dimensions."""
        ends = np.cumsum([part.size or 1 for part in self.parts])
        return tuple(int(end) - 1 for part, end in zip(self.parts, ends, strict=True) if part.gripper)

    @property
    def padding_dims(self) -> tuple[int, ...]:
        """Places of constant zeros among the dimensions."""
        sizes = [part.size for part in self.parts]
        if sizes.count(None) > 1:  # the data alone tell where each of them ends
            return ()
        rest = len(self.names) - sum(size or 0 for size in sizes)
        ends = np.cumsum([rest if size is None else size for size in sizes]).tolist()
        return tuple(dim for part, end in zip(self.parts, ends, strict=True) for dim in range(end - part.zeros, end))

    def values(self, raw: RawEpisode, steps: int, name: str) -> np.ndarray:
        """(T, dimensions) float32 in physical units."""
        columns = [part.columns(raw, steps) for part in self.parts]
        if len({len(column) for column in columns}) > 1:
            raise BadEpisodeError(f"{raw.source}: the fields of the {name} have {[len(c) for c in columns]} steps")
        values = np.concatenate(columns, axis=1)
        if values.shape[1] != len(self.names):
            raise BadEpisodeError(
                f"{raw.source}: its {name} has {values.shape[1]} dimensions, but the mapping names {len(self.names)}: "
                f"{', '.join(self.names)}"
            )
        return values


@dataclass(frozen=True)
class FieldMapping:
    """One dataset's fields, as its YAML file has them; the shipped files in `mappings/` show and explain the keys.

    Args:
        dataset: key of its statistics.
        cameras: camera → raw field of its pictures.
        action: physical units; a gripper is 1 open, 0 closed.
        state: physical units.
        instruction: raw field of the steps or of the episode.
        control_rate_hz: where the format does not tell it.
        drop_steps: how many steps to leave out, {"first": n, "last": n}.
        episode_id: raw field; without it, the episode's number.
        file_path: raw field.
        optional: those of episode_id and file_path that some copies of the dataset lack.
        motion: settings of the language motion (`language_motion.MotionSettings`).
    """

    dataset: str
    cameras: Mapping[str, str]
    action: Vector
    state: Vector | None = None
    instruction: str | None = None
    control_rate_hz: float | None = None
    drop_steps: Mapping[str, int] = field(default_factory=dict)
    episode_id: str | None = None
    file_path: str | None = None
    optional: tuple[str, ...] = ()
    motion: Mapping[str, Any] | None = None
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_dict(cls, given: Any, name: str = "mapping") -> "FieldMapping":
        """A mapping from what its YAML file holds.

        Raises:
            MappingError: an unknown or missing key, or a value that is not allowed.
        """
        check_keys(given, cls, name, hidden=("given",))
        for key in ("dataset", "cameras", "action"):
            require(bool(given.get(key)), f"{name}: {key}", given.get(key), "given")
        values = {key: value for key, value in given.items() if value is not None}
        for key in ("action", "state"):
            if key in values:
                values[key] = Vector.from_dict(values[key], f"{name}: {key}")
        values["optional"] = tuple(values.get("optional", ()))
        mapping = cls(**values, given=dict(given))
        mapping._check(name)
        return mapping

    def _check(self, name: str) -> None:
        for key in ("dataset", "instruction", "episode_id", "file_path"):
            value = getattr(self, key)
            require(value is None or isinstance(value, str), f"{name}: {key}", value, "a text")
        is_named = isinstance(self.cameras, dict) and all(isinstance(item, str) for item in self.cameras.values())
        require(is_named, f"{name}: cameras", self.cameras, "CAMERA: FIELD pairs")
        spaced = next((camera for camera in self.cameras if not is_camera_name(camera)), None)
        require(spaced is None, f"{name}: cameras", spaced, "a name without spaces for each, such as wrist")
        rate = self.control_rate_hz
        require(rate is None or is_positive_number(rate), f"{name}: control_rate_hz", rate, "a number above 0")
        require(isinstance(self.drop_steps, dict), f"{name}: drop_steps", self.drop_steps, "first: N and last: N")
        try:
            refuse_unknown(self.drop_steps, {"first", "last"}, f"{name}: drop_steps.")
            refuse_unknown(self.optional, set(METADATA_COLUMNS), f"{name}: optional: ")
        except ValueError as error:
            raise MappingError(str(error)) from error
        for key, count in self.drop_steps.items():
            require(is_count(count), f"{name}: drop_steps.{key}", count, "a number of steps")
        if self.motion is not None:
            check_motion(self.motion, name)
        parts = [part for vector in (self.action, self.state) if vector for part in vector.parts]
        if any(part.change for part in parts) and not self.drop_steps.get("last"):
            raise MappingError(f"{name}: the last step has no difference_to_next; set drop_steps: {{last: 1}}.")

    @property
    def description(self) -> DatasetDescription:
        state = self.state or Vector((), (), ())
        return DatasetDescription(
            dataset=self.dataset,
            cameras=tuple(self.cameras),
            action_names=self.action.names,
            action_units=self.action.units,
            gripper_dims=self.action.gripper_dims,
            state_names=state.names,
            state_units=state.units,
            first_step=self.drop_steps.get("first", 0),
            dropped_steps=sum(self.drop_steps.values()),
            state_padding=state.padding_dims,
            motion=self.motion,
        )

    def with_dataset(self, dataset: str) -> "FieldMapping":
        """The same for another dataset with the same fields."""
        return replace(self, dataset=dataset, given={**self.given, "dataset": dataset})

    def episode(self, raw: RawEpisode, number: int) -> Episode:
        """The episode that the raw fields describe.

        Args:
            number: the episode's place in its reader, its id where the recording has none.

        Raises:
            MappingError: a field that the data lack, with those they have; an instruction that is no text.
            BadEpisodeError: this episode's columns do not fit, or are too short.
        """
        self.require_fields(raw.source, raw.steps, raw.metadata)
        steps = len(raw.steps[next(part.field for part in self.action.parts if part.field)])
        columns = {
            "actions": self._kept(self.action.values(raw, steps, "action")),
            "states": self._kept(self.state.values(raw, steps, "state")) if self.state else None,
            "instructions": self._kept(self._instructions(raw, steps)),
            "images": {camera: self._kept(pictures(raw, camera, name)) for camera, name in self.cameras.items()},
        }
        check_finite(columns, raw.source)
        identity = {
            "dataset": self.dataset,
            "episode_id": self._metadata(raw, "episode_id") or str(number),
            "file_path": self._metadata(raw, "file_path"),
            "control_rate_hz": self._control_rate(raw),
        }
        try:
            return Episode(**columns, **identity)
        except ValueError as error:
            dropped = f"{steps} recorded steps, {dict(self.drop_steps) or 'none'} dropped"
            raise BadEpisodeError(f"{raw.source}: {error} ({dropped})") from error

    def require_fields(self, source: str, steps: Collection[str], episode: Collection[str]) -> None:
        """Refuse data that lack a field of the mapping.

        Args:
            source: what messages call the data.
            steps: names of the fields of the steps.
            episode: names of the fields of the whole episode.

        Raises:
            MappingError: naming the field, the key that asks for it, the fields there are and the remedy.
        """
        asked = {f"cameras.{camera}": name for camera, name in self.cameras.items()}
        for vector in ("state", "action"):
            parts = enumerate(getattr(self, vector).parts) if getattr(self, vector) else ()
            asked |= {f"{vector}.parts[{number}].field": part.field for number, part in parts if part.field}
        for key, name in asked.items():
            require_field(source, key, name, {"its fields": steps})
        if self.instruction is not None:
            places = {"its fields": steps, "its fields of the whole episode": episode}
            require_field(source, "instruction", self.instruction, places)
        for key in METADATA_COLUMNS:
            if (name := getattr(self, key)) is not None and key not in self.optional:
                require_field(source, key, name, {"its fields of the whole episode": episode})

    def _kept(self, column: Any) -> Any:
        return column[self.drop_steps.get("first", 0) : max(len(column) - self.drop_steps.get("last", 0), 0)]

    def _instructions(self, raw: RawEpisode, steps: int) -> list[str | None]:
        if self.instruction is None:
            return [None] * steps
        try:
            return instruction_texts(raw, self.instruction, steps)
        except NoTextError as error:
            known = ", ".join(text_fields(raw)) or "absent"
            raise MappingError(
                f"{raw.source}: `instruction: {self.instruction}` of the mapping is a field of texts, but it holds "
                f"{error}. Fields of texts are {known}; correct it in the mapping."
            ) from error

    def _metadata(self, raw: RawEpisode, column: str) -> str | None:
        name = getattr(self, column)
        try:
            return metadata_text(raw.metadata[name]) if name in raw.metadata else None
        except NoTextError as error:
            message = f"{raw.source}: `{column}: {name}` of the mapping is a text or a number, but it holds {error}"
            raise MappingError(f"{message}. Correct it in the mapping.") from error

    def _control_rate(self, raw: RawEpisode) -> float:
        told, mapped = raw.control_rate_hz, self.control_rate_hz
        if told is None and mapped is None:
            raise MappingError(f"{raw.source} does not tell its control rate; set control_rate_hz in the mapping.")
        if None not in (told, mapped) and abs(told - mapped) > 1e-3 * mapped:
            raise MappingError(
                f"{raw.source} was recorded at {told:g} Hz, but the mapping's control_rate_hz is {mapped:g}."
            )
        return float(mapped if told is None else told)


class MappedEpisodes:
    """An `EpisodeReader` over a raw reader and what its fields mean.

    Args:
        raw: reads the format.
        mapping: says what the fields mean.
        source_fingerprint: computes a hash of the files that are read; only asked for when it is needed.
    """

    def __init__(self, raw: RawReader, mapping: FieldMapping, source_fingerprint: Callable[[], str] = str):
        self.raw, self.mapping, self.source_fingerprint = raw, mapping, source_fingerprint

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: int) -> Episode:
        return self.mapping.episode(self.raw[index], index)

    def without_pictures(self) -> "MappedEpisodes":
        """The same episodes without cameras, for what needs only numbers: videos are not decoded then."""
        raw = self.raw.without_pictures() if hasattr(self.raw, "without_pictures") else self.raw
        return MappedEpisodes(raw, replace(self.mapping, cameras={}), self.source_fingerprint)

    @property
    def fingerprint(self) -> str:
        """Hash of where the episodes come from."""
        return hashlib.sha256(json.dumps(self.provenance, sort_keys=True).encode()).hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from: the source's fingerprint and the mapping."""
        return {"source_fingerprint": self.source_fingerprint(), "mapping": dict(self.mapping.given)}

    @property
    def description(self) -> DatasetDescription:
        return self.mapping.description


def check_finite(columns: Mapping[str, Any], source: str) -> None:
    for name in ("actions", "states"):
        bad = np.argwhere(~np.isfinite(columns[name])) if columns[name] is not None else []
        if len(bad):
            step, dim = bad[0]
            raise BadEpisodeError(
                f"{source}: {name} of step {step} has {columns[name][step, dim]} in dimension {dim}; "
                "correct the recording"
            )


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise MappingError(f"{name} is {value!r}, but it must be {allowed}.")


def check_keys(given: Any, kind: type, name: str, hidden: tuple[str, ...] = ()) -> None:
    require(isinstance(given, Mapping), name, given, "KEY: VALUE pairs")
    try:
        refuse_unknown(map(str, given), {item.name for item in fields(kind)} - set(hidden), f"{name}: ")
    except ValueError as error:
        raise MappingError(str(error)) from error


def check_motion(motion: Any, name: str) -> None:
    require(isinstance(motion, Mapping), f"{name}: motion", motion, "KEY: VALUE pairs")
    try:
        MotionSettings.from_dict(motion)
    except ValueError as error:
        raise MappingError(f"{name}: {error}") from error


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def require_field(source: str, key: str, name: str, places: Mapping[str, Collection[str]]) -> None:
    """Refuse a field that is in none of the places, each of which is called by what it holds."""
    if any(name in known for known in places.values()):
        return
    there = "; ".join(f"{what} are {', '.join(sorted(known)) or 'absent'}" for what, known in places.items())
    raise MappingError(
        f"{source} has no field {name}; {there}. The mapping asks for it, `{key}: {name}`: correct it there, or give "
        "the data that the mapping is for."
    )


def numbers(raw: RawEpisode, name: str) -> np.ndarray:
    """A field as (T, n) float32."""
    values = raw.steps[name]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub" or values.ndim not in (1, 2):
        shape = f"an array {values.shape} {values.dtype}" if isinstance(values, np.ndarray) else "no array"
        raise MappingError(f"{raw.source}: {name} is {shape}; a state or action is made of numbers (T,) or (T, n).")
    if len(values) == 0:
        raise BadEpisodeError(f"{raw.source}: {name} has no steps; correct the recording")
    return values.reshape(len(values), -1).astype(np.float32)


def pictures(raw: RawEpisode, camera: str, name: str) -> list[bytes]:
    values = raw.steps[name]
    if len(values) and not isinstance(values[0], bytes):
        found = ", ".join(key for key, value in sorted(raw.steps.items()) if len(value) and isinstance(value[0], bytes))
        raise MappingError(
            f"{raw.source}: `cameras.{camera}: {name}` of the mapping holds no encoded pictures; fields of bytes are "
            f"{found or 'absent'}. Correct it in the mapping."
        )
    return list(values)
