"""Checks of what must fit together: statistics, processor and configuration, semantics, package versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from instructvla.checkpoint_instructvla import library_versions, processor_requirements
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import ActionVisionConfig
from instructvla.evaluation.doctor_lines import Line, Lines, finding, named
from instructvla.official_sizes import RELEASED_CROP_PCT, RELEASED_FEATURE_LAYER
from instructvla.processing import InstructVLAProcessor
from instructvla.processing.action_normalization import check_statistics
from instructvla.processing.chat_prompts import IMAGE_TOKEN

SET_STATISTICS = "set processor.statistics to those of the training data and save it again"
MATCH = "save the processor or the configuration that belongs to these weights"


def check_statistics_of(fields: Mapping[str, Any], config: InstructVLAConfig | None) -> Lines:
    """Each dataset's statistics are complete, finite and of the model's sizes, with a range in each scaled dimension.

    Args:
        fields: of processor_config.json; its own sizes count where there is no configuration.
    """
    statistics = fields.get("statistics")
    if not statistics:
        yield finding("statistics", "there are none: the model can chat, but not act", SET_STATISTICS)
        return
    sizes = vars(config) if config is not None else fields
    action_dim, state_dim = sizes.get("action_dim", 7), sizes.get("state_dim")
    if not isinstance(statistics, Mapping):
        yield finding("statistics", f"they are a {type(statistics).__name__}, not {{unnorm_key: …}}", SET_STATISTICS)
        return
    sound = []
    for key, parts in statistics.items():
        try:
            checked = check_statistics({key: parts}, action_dim, state_dim)[key]
        except ValueError as error:
            yield finding("statistics", str(error), SET_STATISTICS)
            continue
        constant = constant_dims(checked["action"])
        if constant:
            text = f"{key!r}: q01 equals q99 in action dimension {named(constant)}: always the same value comes out"
            yield finding("statistics", text, "take statistics in which it moves, or leave it out of the mask")
        else:
            sound.append(key)
        if state_dim is not None and (constant := constant_dims(checked["state"])):
            yield Line("note", "statistics", f"{key!r}: state dimension {named(constant)} was constant and reads as 0")
    if sound:
        yield Line("ok", "statistics", f"{named(sound)}: {action_dim} action and {state_dim or 'no'} state dimensions")
    if stray := [key for key in fields.get("control_rate_hz") or {} if key not in statistics]:
        text = f"control_rate_hz names {named(stray)}, but the statistics are of {named(statistics)}"
        yield finding("statistics", text, "give both the same keys")


def constant_dims(part: Mapping[str, Any]) -> list[str]:
    """Scaled dimensions without a range."""
    mask = part.get("mask") or [True] * len(part["q01"])
    ranges = zip(part["q01"], part["q99"], mask, strict=True)
    return [str(dim) for dim, (low, high, is_scaled) in enumerate(ranges) if is_scaled and low == high]


def check_fit(processor: InstructVLAProcessor, config: InstructVLAConfig) -> Lines:
    """Sizes, cameras, token ids, vocabulary and prompt of the processor are those of the model."""
    misfits = 0
    for name, needed in processor_requirements(config).items():
        given = getattr(processor, name)
        if given != needed:
            misfits += 1
            yield finding("fit", f"the processor's {name} is {shown(given)}, the model needs {shown(needed)}", MATCH)
    entries, rows = len(processor.tokenizer), config.text_config.vocab_size
    if entries > rows:
        misfits += 1
        yield finding("fit", f"the tokenizer has {entries} entries, the embeddings only {rows} rows", MATCH)
    prompted = processor.action_prompt("move").count(IMAGE_TOKEN)
    if prompted != processor.num_image_tokens:
        misfits += 1
        text = f"the chat template writes {prompted} image tokens, the processor counts {processor.num_image_tokens}"
        yield finding("fit", text, "delete chat_template.jinja and save the processor again")
    if not misfits:
        text = f"cameras {named(config.cameras)}, {config.num_action_queries} action queries from id "
        text += f"{config.query_token_id}, {config.num_image_tokens} image tokens, {entries} entries on {rows} rows"
        yield Line("ok", "fit", text)


def shown(value: Any) -> Any:
    """A run of ids by its ends."""
    is_run = isinstance(value, list) and len(value) > 4 and all(isinstance(item, int) for item in value)
    return f"{value[0]} … {value[-1]} ({len(value)})" if is_run else value


def check_semantics(config: InstructVLAConfig, crop_pct: float | None) -> Lines:
    """What the checkpoint computes where released weights and new training differ, and whether that goes together.

    `crop_pct`: the processor's `action_crop_pct`, None if unknown.
    """
    vision, expert = config.action_vision_config, config.action_expert_config
    yield Line("note", "semantics", describe(config, crop_pct))
    if expert.attention == "additive_bias":
        if crop_pct not in (None, RELEASED_CROP_PCT):
            text = f"attention additive_bias is the released weights', but crop_pct {crop_pct} is not: they were "
            text += f"evaluated at {RELEASED_CROP_PCT}"
            yield finding("semantics", text, f"set action_crop_pct to {RELEASED_CROP_PCT}, or attention block_causal")
        if vision is not None and vision.feature_layer != RELEASED_FEATURE_LAYER:
            text = f"attention additive_bias is the released weights', but feature_layer {vision.feature_layer} is not"
            yield finding("semantics", text, f"set feature_layer {RELEASED_FEATURE_LAYER}, or attention block_causal")
    elif crop_pct == RELEASED_CROP_PCT:
        text = f"crop_pct {crop_pct} is the released weights', but attention {expert.attention} is not: with it, "
        text += "training squashes the expert's picture"
        yield finding("semantics", text, "set action_crop_pct to 1.0, or attention additive_bias")


def describe(config: InstructVLAConfig, crop_pct: float | None) -> str:
    vision, experts = config.action_vision_config, config.adapter_config.expert_names
    parts = [
        f"attention {config.action_expert_config.attention}",
        *describe_vision(vision, crop_pct),
        f"stage {2 if len(experts) > 1 else 1}",
        f"experts {' + '.join(experts) or 'none (merged)'}",
        "thinks before it acts" if config.thinks_by_default else "acts without thinking",
        f"horizon {config.horizon} x {config.action_dim}",
        f"cameras {' + '.join(config.cameras)}",
        "no state" if config.state_dim is None else f"state of {config.state_dim}",
        f"{config.flow_config.num_inference_steps} flow steps",
        str(config.dtype).removeprefix("torch."),
    ]
    return ", ".join(parts)


def describe_vision(vision: ActionVisionConfig | None, crop_pct: float | None) -> list[str]:
    if vision is None:
        return ["no vision tower in the action expert"]
    parts = [f"feature_layer {vision.feature_layer} of {vision.depth}"]
    parts.append(f"crop_pct {'unknown' if crop_pct is None else crop_pct}")
    return parts if vision.film else [*parts, "no FiLM"]


def check_versions(config: InstructVLAConfig) -> Lines:
    """Packages against those at saving: another major or minor version is a finding, another patch level a note.

    A minor version may change a kernel, a default or a resize, and with it the actions; a patch level rarely does.
    """
    saved, installed = config.library_versions, library_versions()
    if not saved:
        yield Line("note", "versions", "the checkpoint does not say which package versions saved it")
        return
    if not isinstance(saved, Mapping):
        yield finding("versions", f"library_versions is {saved!r}, not {{package: version}}", "save the model again")
        return
    same = []
    for package, version in saved.items():
        now = installed.get(package)
        if now is None:
            yield finding("versions", f"{package} {version} at saving, none installed", f"pip install {package}")
        elif minor(version) != minor(now):
            remedy = f"pip install '{package}=={'.'.join(minor(version))}.*', or compare the actions and save again"
            yield finding("versions", f"{package} {version} at saving, {now} installed", remedy)
        elif str(version) != now:
            yield Line("note", "versions", f"{package} {version} at saving, {now} installed: another patch level")
        else:
            same.append(package)
    if same:
        yield Line("ok", "versions", f"as at saving: {named(same, len(same))}")


def minor(version: Any) -> Sequence[str]:
    return str(version).split("+")[0].split(".")[:2]
