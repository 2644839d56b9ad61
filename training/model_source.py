"""The model that a run starts from: a checkpoint, stage 1's for stage 2, a fresh one, or the untrained nano model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import require
from instructvla.hub_source import local_file
from instructvla.init_pretrained import plan_fresh_model, write_fresh_model
from instructvla.matching_processor import matching_processor
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import nano_processor, random_model
from instructvla.training.changed_model import changed_model
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.run_config import ModelSource
from instructvla.training.stage2_start import stage2_from_stage1
from instructvla.training.training_data import Datasets

NANO = "nano"
FRESH_FOLDER = "initial"  # in the run's output folder
SAME_STATISTICS = 0.01  # of the range: what another pass over the same data may differ by


def start_model(
    stage: int, source: ModelSource, datasets: Datasets, output_dir: Path, seed: int
) -> InstructVLAForConditionalGeneration:
    """The model of a run at its start, in float32, with a processor that has the data's statistics.

    Raises:
        ValueError: a source that can't be loaded, is of another stage, or does not fit the data.
    """
    check_source(stage, source)
    if stage == 2:
        model = stage2_from_stage1(source.source, seed, **hub_arguments(source))
        check_statistics_agree(model.processor.statistics or {}, datasets.statistics, source.source)
    elif source.source == NANO:
        model = nano_model(source, datasets, seed)
    else:
        is_fresh = is_made_here(source)
        folder = fresh_model(source, datasets, output_dir, seed) if is_fresh else source.source
        model = load(folder, **({} if is_fresh else hub_arguments(source)))
        refuse_stage2(model, source.source)
        if source.set and not is_fresh:
            model = changed_model(model, source.set, source.source)
        check_all_fit(model, datasets)
        set_processor(model, datasets)
    check_all_fit(model, datasets)
    return model


def check_source(stage: int, source: ModelSource) -> None:
    """Refuse what a stage can't start from without loading it (ValueError)."""
    if not is_made_here(source):
        if source.use_state or (source.set and stage == 2):
            raise ValueError(
                f"model.use_state, and in stage 2 model.set, decide a fresh model, but {source.source} has its "
                "configuration; leave them out, or make another one with `instructvla init`."
            )
        require_checkpoint(source.source, **hub_arguments(source))
    elif stage == 2:
        raise ValueError(
            f"Stage 2 starts from a stage-1 model, so model.source can't be {source.source!r}; give the folder that "
            "training/stage1.py wrote."
        )


def is_made_here(source: ModelSource) -> bool:
    """Whether the run's model is the nano one or a fresh one, not a checkpoint's."""
    return source.source == NANO or source.action_vision is not None


def load(folder: str | Path, **hub: Any) -> InstructVLAForConditionalGeneration:
    """A checkpoint in float32.

    Raises:
        ValueError: no such folder or repository, or one that is no checkpoint.
    """
    require_checkpoint(folder, **hub)
    return InstructVLAForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, **hub)


def require_checkpoint(source: str | Path, revision: str | None = None) -> None:
    """Refuse what is no checkpoint of this model before the library tries to load it (ValueError)."""
    remedy = "give the folder of a checkpoint, such as outputs/stage1/checkpoint-50000, or its Hub repository"
    try:
        config = json.loads(local_file(source, "config.json", revision).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{source} is no checkpoint, as it has no config.json; {remedy}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{source}/config.json is no JSON ({error}); copy the checkpoint again.") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != InstructVLAConfig.model_type:
        raise ValueError(
            f"{source} is a checkpoint of {kind!r}, not of InstructVLA; {remedy}. Stage 1 makes a fresh model of a "
            "base VLM if model.action_vision is given, too."
        )
    if Path(source).is_dir() and not any(Path(source).glob("model*.safetensors")):
        raise ValueError(f"{source} is no whole checkpoint, as it has no model.safetensors; {remedy}.")


def hub_arguments(source: ModelSource) -> dict[str, Any]:
    return {} if source.revision is None else {"revision": source.revision}


def data_fields(source: ModelSource, description: DatasetDescription) -> dict[str, Any]:
    """Configuration fields that the data decide, unless they are set.

    Raises:
        ValueError: sizes are set that the data don't have.
    """
    refuse_size(source, "action_dim", description.action_names, "action")
    if source.set.get("state_dim") is not None:
        refuse_size(source, "state_dim", description.state_names, "state")
    fields = {
        "action_dim": len(description.action_names),
        "cameras": list(description.cameras),
        "state_dim": len(description.state_names) if source.use_state else None,
        "adapter_config": {"experts": 1},
    }
    given = source.set.get("adapter_config", {})
    require(isinstance(given, dict), "model.set.adapter_config", given, "KEY: VALUE pairs, such as rank: 128")
    adapters = fields["adapter_config"] | given
    return fields | source.set | {"adapter_config": adapters}


def refuse_size(source: ModelSource, name: str, names: Sequence[str], what: str) -> None:
    given = source.set.get(name, len(names))
    if given != len(names):
        raise ValueError(
            f"model.set.{name} is {given!r}, but the data have {len(names)} {what} dimensions "
            f"({', '.join(names) or 'none'}); leave it out, or choose the dimensions in the field mapping."
        )


def nano_model(source: ModelSource, datasets: Datasets, seed: int) -> InstructVLAForConditionalGeneration:
    fields = data_fields(source, datasets.description)
    nano_adapters = {"rank": 16, "alpha": 32, "scale_head_size": 64}
    fields["adapter_config"] = nano_adapters | fields["adapter_config"]
    model = random_model(InstructVLAConfig.nano(**fields), seed)
    model.processor = nano_processor(model.config, **processor_fields(datasets))
    return model


def fresh_model(source: ModelSource, datasets: Datasets, output_dir: Path, seed: int) -> Path:
    """The folder of a fresh model, made once."""
    folder = output_dir / FRESH_FOLDER
    if not (folder / "config.json").is_file():
        action_fields = {
            name: processor_fields(datasets)[name] for name in ("action_names", "action_units", "gripper_dims")
        }
        overrides = data_fields(source, datasets.description)
        plan = plan_fresh_model(
            source.source, source.action_vision, overrides, seed=seed, revision=source.revision, **action_fields
        )
        write_fresh_model(plan, folder)
    return folder


def processor_fields(datasets: Datasets) -> dict[str, Any]:
    description = datasets.description
    return {
        "statistics": datasets.statistics,
        "control_rate_hz": datasets.control_rates,
        "action_names": list(description.action_names),
        "action_units": list(description.action_units),
        "gripper_dims": list(description.gripper_dims),
    }


def set_processor(model: InstructVLAForConditionalGeneration, datasets: Datasets) -> None:
    """The model's processor with the statistics, names and rates of these data."""
    old = model.processor
    model.processor = matching_processor(
        model.config, old.tokenizer, action_crop_pct=old.action_crop_pct, **processor_fields(datasets)
    )


def refuse_stage2(model: InstructVLAForConditionalGeneration, name: str) -> None:
    experts = model.config.adapter_config.experts
    if experts > 1:
        raise ValueError(
            f"Stage 1 trains one adaptation expert, but {name} has {experts}: it is a stage-2 model. Give a fresh or "
            "stage-1 model, or run training/stage2.py."
        )


def check_all_fit(model: InstructVLAForConditionalGeneration, datasets: Datasets) -> None:
    for description in datasets.descriptions:
        check_fits(model, description)


def check_fits(model: InstructVLAForConditionalGeneration, description: DatasetDescription) -> None:
    """Refuse data whose actions, states or cameras are not the model's (ValueError)."""
    config, name = model.config, description.dataset
    remedy = "choose the dimensions or cameras in the field mapping, or make a fresh model for these data"
    if len(description.action_names) != config.action_dim:
        raise ValueError(
            f"{name} has actions of {len(description.action_names)} dimensions, the model of {config.action_dim}; "
            f"{remedy}."
        )
    if config.state_dim not in (None, len(description.state_names)):
        raise ValueError(
            f"{name} has states of {len(description.state_names)} dimensions, the model takes {config.state_dim}; "
            f"{remedy}."
        )
    if missing := [camera for camera in config.cameras if camera not in description.cameras]:
        raise ValueError(
            f"{name} has no camera {missing[0]!r}, which the model takes; it has {', '.join(description.cameras)}: "
            f"{remedy}."
        )


def check_statistics_agree(saved: dict[str, Any], of_data: dict[str, Any], name: str) -> None:
    """Refuse data whose ranges are not those that the frozen action expert learnt with (ValueError)."""
    for key, parts in of_data.items():
        if key not in saved:
            raise ValueError(
                f"{name} has no statistics of {key!r}, only of {', '.join(saved) or 'nothing'}: its action expert, "
                "which stage 2 leaves as it is, never learnt these actions. Train stage 1 on them, or rename the data."
            )
        for part in ("action", "state"):
            if part in parts and part in saved[key]:
                check_range(key, part, saved[key][part], parts[part], name)


def check_range(key: str, part: str, saved: dict[str, list], of_data: dict[str, list], name: str) -> None:
    for dim, (low, high) in enumerate(zip(saved["q01"], saved["q99"], strict=True)):
        largest = max(abs(of_data["q01"][dim] - low), abs(of_data["q99"][dim] - high))
        if largest > SAME_STATISTICS * max(high - low, 1e-6):
            raise ValueError(
                f"The statistics of {key!r} in {name} are not those of the data: {part} dimension {dim} ranges from "
                f"{low:g} to {high:g} there, from {of_data['q01'][dim]:g} to {of_data['q99'][dim]:g} here. Give the "
                "data that stage 1 was trained on, or train stage 1 on these."
            )
