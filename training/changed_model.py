"""A checkpoint's model with other settings, e.g. another number of action queries: ablations of a trained model."""

from collections.abc import Mapping
from typing import Any

from transformers.utils import logging

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.matching_processor import matching_processor
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import random_model
from instructvla.processing import InstructVLAProcessor
from instructvla.processing.chat_prompts import query_token

# Of a processor: what does not follow from the configuration.
KEPT = (
    "statistics",
    "control_rate_hz",
    "action_names",
    "action_units",
    "gripper_dims",
    "gripper_convention",
    "action_crop_pct",
)

logger = logging.get_logger(__name__)


def changed_model(
    model: InstructVLAForConditionalGeneration, settings: Mapping[str, Any], name: str
) -> InstructVLAForConditionalGeneration:
    """The model in another configuration, with the weights it has; a log line says which of them are left out.

    Args:
        model: must not be used any more; both share tensors.
        settings: configuration fields, those of a section merged into it, e.g. `{"action_vision_config": None}`.
        name: of the model, for messages.

    Raises:
        ValueError: settings that are refused, or that need weights which the model does not have.
    """
    config = type(model.config).from_dict(model.config.to_dict(), **settings)
    changed, state = random_model(config, seed=0), model.state_dict()
    wanted = changed.state_dict()
    lacking = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    if lacking:
        raise ValueError(
            f"model.set changes {', '.join(settings)} of {name}, which has no weights for that: {lacking[0]} "
            f"({len(lacking)} tensors in all). Leave it out, or train a fresh model with it."
        )
    changed.load_state_dict({key: state[key] for key in wanted}, assign=True)
    if left_out := sorted(state.keys() - wanted.keys()):
        logger.warning("%s: %d tensors are left out, such as %s", name, len(left_out), left_out[0])
    changed.processor = changed_processor(model.processor, config)
    return changed.requires_grad_(True)


def changed_processor(old: InstructVLAProcessor, config: InstructVLAConfig) -> InstructVLAProcessor:
    """A processor for another configuration, with the old one's tokenizer, statistics and names."""
    queries = [query_token(index) for index in range(config.num_action_queries)]
    old.tokenizer.add_tokens(queries, special_tokens=True)
    return matching_processor(config, old.tokenizer, **{name: getattr(old, name) for name in KEPT})
