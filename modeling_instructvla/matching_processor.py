"""The processor that fits a configuration."""

from transformers import PreTrainedTokenizerBase

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.processing import InstructVLAProcessor


def matching_processor(config: InstructVLAConfig, tokenizer: PreTrainedTokenizerBase, **fields) -> InstructVLAProcessor:
    """A processor with the sizes, cameras and dimensions of `config`; `fields` are further ones, e.g. statistics.

    Raises:
        ValueError: as `InstructVLAProcessor`.
    """
    vision = config.action_vision_config
    sizes = {
        "num_image_tokens": config.num_image_tokens,
        "num_action_queries": config.num_action_queries,
        "image_size": config.vision_config.image_size,
        "action_image_size": None if vision is None else vision.image_size,
        "cameras": config.cameras,
        "action_dim": config.action_dim,
        "state_dim": config.state_dim,
    }
    return InstructVLAProcessor(tokenizer, **(sizes | fields))
