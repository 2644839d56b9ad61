"""A model's greedy answers to conversations."""

from collections.abc import Sequence
from typing import Any

import torch

from instructvla.processing import InstructVLAProcessor

Messages = Sequence[dict[str, Any]]


@torch.no_grad()
def greedy_answers(
    model: Any,
    processor: InstructVLAProcessor,
    conversations: Sequence[Messages],
    images: Sequence[Any],
    max_new_tokens: int = 32,
    **options: bool,
) -> list[str]:
    """One answer to each conversation, all as one batch.

    Args:
        model: `InstructVLAForConditionalGeneration` in evaluation mode.
        processor: the model's.
        conversations: messages as `processor.apply_chat_template` takes them, the last one of the user.
        images: that the conversations show, in their order.
        max_new_tokens: of an answer.
        options: of `model.generate`; `adapters=False` asks the base model.
    """
    texts = [processor.apply_chat_template(list(messages), add_generation_prompt=True) for messages in conversations]
    inputs = processor.prompt_inputs(list(images), texts, padding_side="left").to(model.device)
    ids = model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=model.config.end_of_turn_ids,
        pad_token_id=processor.tokenizer.pad_token_id,
        **options,
    )
    said = ids[:, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.batch_decode(said, skip_special_tokens=True)
