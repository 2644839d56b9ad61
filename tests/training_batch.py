"""A labelled batch with action chunks, made by the model's own processor."""

import numpy as np
import torch
from PIL import Image


def picture(seed: int = 0, height: int = 60, width: int = 80) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def conversation(content: list[dict], answer: str) -> list[dict]:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def labelled(processor, conversations: list[list[dict]]) -> dict[str, torch.Tensor]:
    """Token ids, and labels from each answer on."""
    inputs = processor.apply_chat_template(
        conversations, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, padding_side="right"
    )
    targets = torch.as_tensor(np.asarray(inputs.pop("assistant_masks"))).bool()
    return {**inputs, "labels": inputs["input_ids"].masked_fill(~targets, -100)}


def training_batch(model, rows: int = 2, state=None, words: int = 0) -> dict[str, torch.Tensor]:
    """Prompts with an answer and all queries, labelled from the answer on, and chunks with padding.

    Args:
        state: (rows, state_dim) in physical units, for a model with state.
        words: more of them in each instruction.
    """
    processor = model.processor
    queries = "".join(processor.tokenizer.convert_ids_to_tokens(processor.query_token_ids))
    text = {"type": "text", "text": "pick it up" + " please" * words}
    conversations = [
        conversation([{"type": "image", "image": picture(i)}, text], f"I take it.{' Now.' * i} {queries}")
        for i in range(rows)
    ]
    shape = (rows, model.config.horizon, model.config.action_dim)
    generator = torch.Generator().manual_seed(0)
    return {
        **labelled(processor, conversations),
        "actions": torch.rand(shape, generator=generator) * 2 - 1,
        "action_mask": torch.arange(shape[1]).expand(shape[:2]) < 12,
        **processor.action_inputs([picture(i) for i in range(rows)], state),
        "noise": torch.randn(shape, generator=generator),
        "flow_time": torch.rand(rows, generator=generator),
    }


def text_batch(model) -> dict[str, torch.Tensor]:
    """Two labelled chats without pictures."""
    chats = [conversation([{"type": "text", "text": "Say hi."}], answer) for answer in ("Hi.", "Hello to you.")]
    return labelled(model.processor, chats)
