"""What a training run is told: one YAML file, every key of which is checked before anything starts."""

import importlib.util
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from trl import SFTConfig

from instructvla.config_overrides import parse_value
from instructvla.configuration_sections import is_number, refuse_unknown, require
from instructvla.training.data.augmentation import ImageAugmentation
from instructvla.training.data.samples import FrameConversations

# What a run decides itself, so that `trainer:` can't.
OWN_TRAINER_FIELDS = {
    "output_dir": "give output_dir at the top level",
    "remove_unused_columns": "batches come whole from the collator",
    "dataset_kwargs": "batches come whole from the collator",
    "max_length": "give data.max_length",
    "packing": "rows hold pictures and action queries",
    "padding_free": "rows hold pictures and action queries",
    "eval_strategy": "give evaluation.every",
    "eval_steps": "give evaluation.every",
    "ignore_data_skip": "the data's place is stored in each checkpoint",
    "push_to_hub": "use --push_to_hub",
    "resume_from_checkpoint": "use --resume_from_checkpoint",
    "num_train_epochs": "the stream of frames is endless; give max_steps",
    "per_device_eval_batch_size": "give evaluation.batch_size",
    "save_strategy": "a run always writes checkpoints; give save_steps",
    "load_best_model_at_end": "the retention gate keeps the best checkpoint",
    "metric_for_best_model": "the retention gate keeps the checkpoint with the lowest action error",
    "greater_is_better": "the retention gate keeps the checkpoint with the lowest action error",
}

# The smallest value of numbers that would end a run late, or in a division by zero.
LEAST = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "save_total_limit": 1,
    "dataloader_prefetch_factor": 1,
    "dataloader_num_workers": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "warmup_steps": 0,
    "seed": 0,
}
ABOVE_ZERO = ("save_steps", "logging_steps")  # shares of max_steps below 1


@dataclass(frozen=True)
class ModelSource:
    """Which model is trained.

    Args:
        source: checkpoint folder or Hub repository; "nano", the untrained small model; or, with `action_vision`, the
            base VLM (Eagle2's folder or repository).
        action_vision: DINOv2 with registers, for a fresh model (see `instructvla init`).
        revision: of `source` on the Hub.
        use_state: whether a fresh or nano model takes the state.
        set: configuration fields of a fresh or nano model, e.g. num_action_queries; or, before stage 2, those in which
            a checkpoint's model is changed (`changed_model`).
        frozen_dtype: of the frozen tensors; bfloat16 halves their memory.
    """

    source: str
    action_vision: str | None = None
    revision: str | None = None
    use_state: bool = False
    set: dict[str, Any] = field(default_factory=dict)
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class DatasetSource:
    """One dataset of the mixture, as `open_episodes` takes it.

    Args:
        source: prepared, RLDS or LeRobot dataset.
        mapping: of RLDS and LeRobot.
        split: that is trained on.
        name: of its statistics, instead of the mapping's.
        revision: of a Hub dataset.
        weight: share of frames in the mixture, relative to the others'; default: the number of its frames.
    """

    source: str
    mapping: str | None = None
    split: str = "train"
    name: str | None = None
    revision: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class ChatSource:
    """Multimodal conversations, interleaved with the robot's (paper section 5).

    Args:
        file: Bunny or LLaVA JSON.
        image_folder: of its pictures; default: "images" beside the file.
        robot_share, chat_share: so many robot batches for so many chat batches; stage 0 has no robot batches.
        batch_size: of a chat batch; default: the robot's.
    """

    file: str
    image_folder: str | None = None
    robot_share: int = 7
    chat_share: int = 1
    batch_size: int | None = None


@dataclass(frozen=True)
class DataSettings:
    """What is learnt from.

    Args:
        datasets: the mixture.
        shares: kind of conversation → proportion; default: the stage's recipe.
        annotated_share: share of the episodes whose VLA-IT annotation is used (Fig. 6 f).
        chat: multimodal conversations; None for robot batches only.
        augmentation: strengths other than the released ones; None for none.
        shuffle_window: frames held to be drawn from, per data worker.
        max_length: tokens of the longest row.
        statistics: file from `instructvla statistics`; default: computed at the start, into the output folder.
        on_bad: "raise" stops at an episode or record that can't be used, "skip" goes on without it.
    """

    datasets: list[DatasetSource]
    shares: dict[str, float] | None = None
    annotated_share: float = 1.0
    chat: ChatSource | None = None
    augmentation: dict[str, Any] | None = field(default_factory=dict)
    shuffle_window: int = 1000
    max_length: int = 2048
    statistics: str | None = None
    on_bad: Literal["raise", "skip"] = "raise"

    def make_augmentation(self) -> ImageAugmentation | None:
        """
        Raises:
            ValueError: an unknown strength, or one outside its range.
        """
        if self.augmentation is None:
            return None
        refuse_unknown(self.augmentation, {item.name for item in fields(ImageAugmentation)}, "data.augmentation.")
        pairs = {name: tuple(value) if isinstance(value, list) else value for name, value in self.augmentation.items()}
        return ImageAugmentation(**pairs)


@dataclass(frozen=True)
class EvaluationSettings:
    """Open-loop action error on held-out episodes.

    Args:
        every: optimiser steps between two evaluations; there is one at the end, too.
        episodes: held out of each dataset; 0 evaluates nothing.
        chunks: action chunks compared per episode.
        split: of the datasets to take them from; default: the training split, whose chosen episodes are then not
            trained on.
        batch_size: chunks predicted at once.
    """

    every: int = 500
    episodes: int = 4
    chunks: int = 8
    split: str | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class RetentionSettings:
    """What the VLM still knows, against the base model without adapters.

    Args:
        file: held-out conversations, in the form of `ChatSource.file`.
        image_folder: of its pictures.
        records: how many are scored by their loss.
        answers: how many are also answered, and the answers compared.
        max_loss_increase: largest relative increase of the text loss over the base's; beyond, the run stops.
        max_score_drop: largest drop of the answers' score (0 to 1) below the base's; beyond, the run stops.
        grace_steps: before this step a violation is only logged.
    """

    file: str
    image_folder: str | None = None
    records: int = 200
    answers: int = 50
    max_loss_increase: float | None = None
    max_score_drop: float | None = None
    grace_steps: int = 1000


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Args:
        model: what is trained.
        data: what it learns from.
        output_dir: folder of its checkpoints, logs and statistics.
        train: parts that are trained (`trainable_parts.PARTS`); default: the stage's.
        evaluation: on held-out episodes.
        retention: of the VLM's knowledge; None for none.
        compile: whether the layers are compiled by torch.compile.
        trainer: fields of TRL's `SFTConfig`, such as max_steps and learning_rate.
    """

    model: ModelSource
    data: DataSettings
    output_dir: str
    train: list[str] | None = None
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    retention: RetentionSettings | None = None
    compile: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)


SECTIONS = {
    (RunConfig, "model"): ModelSource,
    (RunConfig, "data"): DataSettings,
    (RunConfig, "evaluation"): EvaluationSettings,
    (RunConfig, "retention"): RetentionSettings,
    (DataSettings, "datasets"): DatasetSource,
    (DataSettings, "chat"): ChatSource,
}


def read_run_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The run that a YAML file and "section.key=value" overrides describe.

    A file with `base: OTHER.yaml` starts from that file (a path relative to its own folder) and changes what it gives.

    Raises:
        ValueError: no such file, a key that doesn't exist (the nearest is named), a missing key, or a value of another
            type; the message names file and key.
    """
    path = Path(path)
    given = read_yaml(path)
    for override in overrides:
        apply_override(given, override)
    try:
        config = build(RunConfig, given, "")
        config = replace(config, trainer=checked_trainer(config.trainer))
        check_ranges(config)
        check_output_dir(Path(config.output_dir))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The pairs of a file, above those of its base."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path} can't be read as YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"--config {path} must hold KEY: VALUE pairs, such as model:, data: and output_dir:.")
    base = given.pop("base", None)
    return given if base is None else overlaid(read_yaml(path.parent / str(base)), given)


def overlaid(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given` over `base`, section by section; lists are replaced whole."""
    merged = dict(base)
    for name, value in given.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = overlaid(merged[name], value) if both and name != "shares" else value
    return merged


def apply_override(config: dict[str, Any], override: str) -> None:
    """Set one value in nested dictionaries; a number in the path is a place in a list."""
    name, equals, text = override.partition("=")
    *path, last = name.strip().split(".")
    if not equals or not last:
        raise ValueError(f"--set {override} is not KEY=VALUE, such as trainer.max_steps=100.")
    place: Any = config
    try:
        for key in path:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        place[int(last) if isinstance(place, list) else last] = parse_value(override, text.strip())
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"--set {override}: there is no such place in the configuration ({error}).") from error


def build(kind: type, given: Any, prefix: str) -> Any:
    """A section from its YAML form, with its sections inside."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} is {given!r}, but it must be KEY: VALUE pairs.")
    known = {item.name: item for item in fields(kind)}
    refuse_unknown(map(str, given), set(known), prefix)
    values = {}
    for name, value in given.items():
        section = SECTIONS.get((kind, name))
        if name == "datasets" and section is not None:
            items = checked(value, list, f"{prefix}{name}")
            values[name] = [build(section, item, f"{prefix}{name}.{place}.") for place, item in enumerate(items)]
        elif section is not None and value is not None:
            values[name] = build(section, value, f"{prefix}{name}.")
        else:
            values[name] = checked(value, known[name].type, f"{prefix}{name}")
    try:
        return kind(**values)
    except TypeError as error:
        missing = [name for name in known if name not in values and f"'{name}'" in str(error)]
        raise ValueError(f"{', '.join(prefix + name for name in missing)} is missing; set it.") from error


def checked(value: Any, annotation: Any, name: str) -> Any:
    """The value if it is of the field's type; an integer serves as a float, and so does 1e-4, which YAML calls text."""
    if get_origin(annotation) is Literal:
        if value not in get_args(annotation):
            raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(get_args(annotation))}.")
        return value
    allowed = alternatives(annotation)
    kinds = tuple(get_origin(kind) or kind for kind in allowed)
    if float in kinds and type(value) is int:
        return float(value)
    if float in kinds and str not in kinds and isinstance(value, str) and is_float(value):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        hint = "; episodes: 0 evaluates nothing" if name == "evaluation" else ""
        given = "null" if value is None else repr(value)
        raise ValueError(f"{name} is {given}, but it must be {' or '.join(map(kind_name, kinds))}{hint}.")
    if isinstance(value, list) and list[str] in allowed and not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is {value!r}, but it must be a list of str.")
    return value


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    return get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)


def is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def kind_name(kind: type) -> str:
    """A type as a YAML file's author knows it."""
    if kind is dict or is_dataclass(kind):
        return "KEY: VALUE pairs"
    return "null" if kind is type(None) else kind.__name__


def checked_trainer(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `trainer:`, each of its field's type.

    Raises:
        ValueError: a field that is not the user's or doesn't exist, a value of another type or outside its range.
    """
    for name in trainer:
        if name in OWN_TRAINER_FIELDS:
            raise ValueError(f"trainer.{name} can't be set: {OWN_TRAINER_FIELDS[name]}.")
    known = {item.name: item.type for item in fields(SFTConfig) if item.init and item.name not in OWN_TRAINER_FIELDS}
    refuse_unknown(map(str, trainer), set(known), "trainer.")
    steps = trainer.get("max_steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"trainer.max_steps is {steps!r}; give how many optimiser steps are made, 1 or more.")
    values = {name: checked_argument(name, value, known[name]) for name, value in trainer.items()}
    for name in ("deepspeed", "accelerator_config"):
        check_json_file(name, values.get(name))
    if values.get("deepspeed") is not None and importlib.util.find_spec("deepspeed") is None:
        raise ValueError("trainer.deepspeed needs DeepSpeed, which is not installed: pip install deepspeed.")
    return values


def checked_argument(name: str, value: Any, annotation: Any) -> Any:
    """One value of `trainer:`; whole numbers stay whole, as `save_steps` below 1 is a share."""
    kinds = alternatives(annotation)
    if not all(isinstance(get_origin(kind) or kind, type) for kind in kinds):
        return value  # a type that can't be checked by a look at the value
    choices = [item.value for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for item in kind]
    if choices:
        if value not in choices:
            raise ValueError(f"trainer.{name} is {value!r}, but it must be one of {', '.join(map(str, choices))}.")
        return value
    found = checked(value, annotation, f"trainer.{name}")
    if found is not None and (name in LEAST and found < LEAST[name]):
        raise ValueError(f"trainer.{name} is {value!r}; give {LEAST[name]} or more.")
    if name in ABOVE_ZERO and found <= 0:
        raise ValueError(f"trainer.{name} is {value!r}; give a number of steps, 1 or more.")
    return value if isinstance(value, int) else found


def check_json_file(name: str, given: Any) -> None:
    if isinstance(given, str) and not Path(given).is_file():
        raise ValueError(f"trainer.{name} is {given!r}, but there is no such file; give a JSON file or its pairs.")


def check_output_dir(folder: Path) -> None:
    """Refuse a folder that can't be made or written (ValueError)."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ValueError(f"output_dir is {folder}, but {existing} is a file; give a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"output_dir is {folder}, but {existing} can't be written; give a folder that can.")


def check_ranges(config: RunConfig) -> None:
    data, evaluation, retention = config.data, config.evaluation, config.retention
    if not data.datasets:
        raise ValueError("data.datasets is empty; give at least one.")
    if not 0 <= data.annotated_share <= 1:
        raise ValueError(f"data.annotated_share is {data.annotated_share}; give a share from 0 to 1.")
    for place, dataset in enumerate(data.datasets):
        if dataset.weight is not None and not (math.isfinite(dataset.weight) and dataset.weight > 0):
            raise ValueError(f"data.datasets.{place}.weight is {dataset.weight}; give a number above 0.")
    require_least("data", data, shuffle_window=1, max_length=1)
    require_least("evaluation", evaluation, every=1, episodes=0, chunks=1, batch_size=1)
    if data.chat is not None:
        require_least("data.chat", data.chat, robot_share=0, chat_share=1, batch_size=1)
    if retention is not None:
        limits = {"max_loss_increase": 0, "max_score_drop": 0}
        require_least("retention", retention, records=1, answers=0, grace_steps=0, **limits)
        if not evaluation.episodes:
            raise ValueError("retention chooses the best checkpoint by its action error; hold out evaluation.episodes.")
    data.make_augmentation()
    check_shares(data.shares)


def require_least(prefix: str, section: Any, **least: int) -> None:
    for name, smallest in least.items():
        value = getattr(section, name)
        if value is not None and not value >= smallest:
            raise ValueError(f"{prefix}.{name} is {value}; give {smallest} or more.")


def check_shares(shares: Mapping[str, Any] | None) -> None:
    if shares is None:
        return
    for kind, share in shares.items():
        require(is_number(share), f"data.shares.{kind}", share, "a number, such as 0.2")
    try:
        FrameConversations({str(kind): share for kind, share in shares.items()}, num_action_queries=0)
    except ValueError as error:
        raise ValueError(f"data.shares: {error}.") from error
