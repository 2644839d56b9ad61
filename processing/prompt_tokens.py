"""Prompts as token ids, and the checks that they hold what the model expects."""

import threading
from typing import Any

from transformers import PreTrainedTokenizerBase

from .action_normalization import nearest
from .chat_prompts import IMAGE_TOKEN, PROMPT_TOKENS, query_token

# What apply_chat_template and a collator may set on the tokenizer's call.
TEXT_OPTIONS = (
    "padding",
    "padding_side",
    "pad_to_multiple_of",
    "truncation",
    "max_length",
    "add_special_tokens",
    "return_offsets_mapping",
    "return_text_replacement_offsets",
    "sanitize_control_tokens",
)

TOKENIZING = threading.Lock()


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, num_action_queries: int) -> None:
    """Refuse a tokenizer without the prompt's tokens, or whose action queries have scattered ids (ValueError)."""
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer must be a fast one and have a pad token")
    queries = [query_token(index) for index in range(num_action_queries)]
    tokens = [*PROMPT_TOKENS, *queries]
    encoding = encode_texts(tokenizer, tokens)
    rows = [
        [token_id for token_id, kept in zip(ids, mask, strict=True) if kept]
        for ids, mask in zip(encoding["input_ids"], encoding["attention_mask"], strict=True)
    ]
    missing = [
        token for token, row in zip(tokens, rows, strict=True) if tokenizer.convert_ids_to_tokens(row) != [token]
    ]
    if missing:
        shown = missing if len(missing) <= 8 else [*missing[:4], "…", *missing[-2:]]
        raise ValueError(
            f"the tokenizer lacks {len(missing)} special token(s): {shown}; add them with "
            "tokenizer.add_tokens([...], special_tokens=True) and resize the model's embeddings to match"
        )
    query_ids = [row[0] for row in rows[len(PROMPT_TOKENS) :]]
    if query_ids != list(range(query_ids[0], query_ids[0] + len(queries))):
        raise ValueError(f"{queries[0]} … {queries[-1]} must have consecutive token ids in this order")


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any) -> dict[str, list]:
    """Token ids and masks as lists, padded; never with special tokens that the text doesn't hold.

    One thread at a time: a fast tokenizer keeps the padding it is called with, and threads that share it would change
    it under each other. For the same reason padding is on for one text, too.

    Args:
        options: some of `TEXT_OPTIONS`, for the tokenizer's call.

    Raises:
        ValueError: an unknown option, or a text longer than the tokenizer's context.
    """
    unknown = [name for name in options if name not in TEXT_OPTIONS]
    if unknown:
        raise ValueError(
            f"unknown argument {unknown[0]!r}; accepted are {TEXT_OPTIONS}, the nearest is "
            f"{nearest(unknown[0], TEXT_OPTIONS)!r}"
        )
    options.pop("return_text_replacement_offsets", None)  # nothing is replaced, so there are no such offsets
    with TOKENIZING:
        encoding = tokenizer(texts, **({"padding": True, "add_special_tokens": False} | options))
    longest = max(sum(mask) for mask in encoding["attention_mask"])
    if longest > tokenizer.model_max_length:
        raise ValueError(f"the prompt has {longest} tokens, the context holds {tokenizer.model_max_length}")
    data = {name: encoding[name] for name in ("input_ids", "attention_mask")}
    if "offset_mapping" in encoding:
        data["offset_mapping"] = [
            _monotone(offsets, mask)
            for offsets, mask in zip(encoding["offset_mapping"], data["attention_mask"], strict=True)
        ]
    return data


def check_image_tokens(
    input_ids: list[list[int]], image_token_id: int, num_image_tokens: int, num_images: int, per_text: list[int] | None
) -> None:
    """Refuse prompts whose image tokens don't match the images (ValueError).

    Args:
        input_ids: one list per prompt.
        num_image_tokens: tokens of one image.
        num_images: of all prompts together.
        per_text: images of each prompt, None if only their total is known.
    """
    counts = [row.count(image_token_id) for row in input_ids]
    if per_text is None:
        whole = all(count % num_image_tokens == 0 for count in counts)
        matching = whole and sum(counts) == num_images * num_image_tokens
    else:
        matching = counts == [number * num_image_tokens for number in per_text]
    if not matching:
        raise ValueError(
            f"got {num_images if per_text is None else per_text} image(s), each takes {num_image_tokens} "
            f"{IMAGE_TOKEN} tokens, but the prompts hold {counts}; give every image of the text, and no other"
        )


def _monotone(offsets: list[tuple[int, int]], mask: list[int]) -> list[tuple[int, int]]:
    """Offsets with right padding placed at the end of the text instead of at 0, as the search for spans expects."""
    end = max((stop for _, stop in offsets), default=0)
    length = len(mask) - mask[::-1].index(1) if 1 in mask else 0
    return [*offsets[:length], *[(end, end)] * (len(offsets) - length)]
