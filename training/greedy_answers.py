"""A model's greedy answers to conversations."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from instructvla.processing import InstructVLAProcessor

Messages = Sequence[dict[str, Any]]


class StopStrings(StoppingCriteria):
    """Ends a row once its answer holds one of some strings; the prompt's own text doesn't count.

    Args:
        tokenizer: the model's.
        prompt_length: tokens of the (padded) prompts.
        strings: that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_length: int, strings: Sequence[str]):
        self.tokenizer, self.prompt_length, self.strings = tokenizer, prompt_length, tuple(strings)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        said = self.tokenizer.batch_decode(input_ids[:, self.prompt_length :], skip_special_tokens=True)
        return torch.tensor(
            [any(stop in text for stop in self.strings) for text in said], dtype=torch.bool, device=input_ids.device
        )


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
    return greedy_continuations(model, processor, texts, images, max_new_tokens, **options)


@torch.no_grad()
def greedy_continuations(
    model: Any,
    processor: InstructVLAProcessor,
    texts: Sequence[str],
    images: Sequence[Any],
    max_new_tokens: int = 32,
    until: Sequence[str] = (),
    **options: bool,
) -> list[str]:
    """As `greedy_answers`, from formatted prompts.

    Args:
        texts: what `processor.apply_chat_template` gives.
        images: of all the texts in their order, or a list of each text's.
        until: strings that end an answer and are no part of it.
    """
    inputs = processor.prompt_inputs(list(images), list(texts), padding_side="left").to(model.device)
    prompt_length = inputs["input_ids"].shape[1]
    if until:
        options["stopping_criteria"] = [StopStrings(processor.tokenizer, prompt_length, until)]
    ids = model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=model.config.end_of_turn_ids,
        pad_token_id=processor.tokenizer.pad_token_id,
        **options,
    )
    said = processor.tokenizer.batch_decode(ids[:, prompt_length:], skip_special_tokens=True)
    return [before_any(text, until) for text in said]


def before_any(text: str, strings: Sequence[str]) -> str:
    """The text up to the first occurrence of one of the strings."""
    return text[: min((place for place in map(text.find, strings) if place >= 0), default=len(text))]
