"""The released size with random weights: for times and memory, without a download."""

import torch

from instructvla.configuration_instructvla import NANO_ENTRIES, InstructVLAConfig
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import nano_processor


def untrained_2b(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16, seed: int = 0, **fields
) -> InstructVLAForConditionalGeneration:
    """`InstructVLAConfig.instructvla_2b` with random weights, made where and as they are used: nothing is copied.

    It has the nano model's tokenizer, so that no tokenizer is needed from elsewhere; the vocabulary keeps its size, and
    most of its entries are words without a text.

    Args:
        seed: of the weights; the global random state is left as it was.
        fields: of the configuration, e.g. for fewer layers; `text_config` as a dictionary.
    """
    device, nano = torch.device(device), InstructVLAConfig.nano()
    tokens = {name: getattr(nano.text_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens |= fields.pop("text_config", {})
    ids = {"image_token_id": nano.image_token_id, "query_token_id": NANO_ENTRIES}
    config = InstructVLAConfig.instructvla_2b(text_config=tokens, **ids, **fields)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        usual = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = InstructVLAForConditionalGeneration(config)
        finally:
            torch.set_default_dtype(usual)
    model.processor = nano_processor(config)
    return model
