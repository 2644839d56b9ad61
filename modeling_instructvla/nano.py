"""The embedded nano model: about 5 M parameters and its own tokenizer, for tests and for runs without a download."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

import instructvla.processing
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.matching_processor import matching_processor
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.processing import InstructVLAProcessor
from instructvla.processing.chat_prompts import query_token

# Ranges of a small table-top arm at 5 Hz, chosen by hand: 5 cm and 0.25 rad per step either way, gripper from 0 to 1.
NANO_STATISTICS = {
    "untrained": {
        "action": {
            "q01": [-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0],
            "q99": [0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0],
            "mask": [True, True, True, True, True, True, False],
        }
    }
}


def nano_processor(config: InstructVLAConfig | None = None, **fields) -> InstructVLAProcessor:
    """The processor that fits a nano configuration; `fields` go to `InstructVLAProcessor`, e.g. other statistics."""
    config = config or InstructVLAConfig.nano()
    tokenizer = AutoTokenizer.from_pretrained(Path(instructvla.processing.__file__).with_name("nano_tokenizer"))
    tokenizer.add_tokens([query_token(index) for index in range(config.num_action_queries)], special_tokens=True)
    statistics = NANO_STATISTICS
    if config.state_dim is not None:
        state = {"q01": [-1.0] * config.state_dim, "q99": [1.0] * config.state_dim}
        statistics = {"untrained": NANO_STATISTICS["untrained"] | {"state": state}}
    defaults = {"statistics": statistics, "control_rate_hz": {"untrained": 5.0}}
    return matching_processor(config, tokenizer, **(defaults | fields))


def untrained_nano(seed: int = 0, **fields) -> InstructVLAForConditionalGeneration:
    """A nano model with random weights and its processor: everything runs, the motion means nothing.

    Args:
        seed: of the weights; the global random state is left as it was.
        fields: of `InstructVLAConfig.nano`; the statistics are made for 7 action dimensions.
    """
    model = random_model(InstructVLAConfig.nano(**fields), seed)
    model.processor = nano_processor(model.config)
    return model


def random_model(config: InstructVLAConfig, seed: int) -> InstructVLAForConditionalGeneration:
    """A model with random weights and no processor; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InstructVLAForConditionalGeneration(config)
