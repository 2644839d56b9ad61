"""Prompts as token ids: padding, masks, and the refusals that keep a wrong prompt from the model."""

import threading

import pytest

from instructvla.processing.prompt_tokens import check_image_tokens, check_tokenizer, encode_texts
from tests.tiny_processor import SPECIAL_TOKENS, byte_tokenizer


def test_texts_are_padded_on_the_tokenizers_side_and_masked():
    tokenizer = byte_tokenizer(SPECIAL_TOKENS)
    tokenizer.padding_side = "left"
    data = encode_texts(tokenizer, ["go", "<|im_start|>go now"])
    lengths = [sum(mask) for mask in data["attention_mask"]]
    assert lengths == [2, 7]
    assert data["attention_mask"][0] == [0] * 5 + [1] * 2
    assert encode_texts(tokenizer, ["go", "go now"], padding_side="right")["attention_mask"][0][:3] == [1, 1, 0]


def test_a_tokenizer_is_called_by_one_thread_at_a_time():
    """It keeps its padding between setting and using it."""
    order = []

    class Slow:
        model_max_length = 9

        def __call__(self, texts, **options):
            order.append(texts)
            if texts == ["first"]:
                second.start()
                second.join(0.2)
            order.append(texts)
            return {"input_ids": [[1]], "attention_mask": [[1]]}

    tokenizer = Slow()
    second = threading.Thread(target=encode_texts, args=(tokenizer, ["second"]))
    encode_texts(tokenizer, ["first"])
    second.join(10)
    assert order == [["first"], ["first"], ["second"], ["second"]]


def test_offsets_of_right_padding_stand_at_the_end_of_the_text():
    tokenizer = byte_tokenizer(SPECIAL_TOKENS)
    data = encode_texts(tokenizer, ["go", "go now"], padding_side="right", return_offsets_mapping=True)
    assert data["offset_mapping"][0] == [(0, 1), (1, 2), (2, 2), (2, 2), (2, 2), (2, 2)]


def test_unknown_options_and_overlong_texts_are_refused():
    tokenizer = byte_tokenizer(SPECIAL_TOKENS)
    with pytest.raises(ValueError, match="unknown argument 'pading'.*nearest is 'padding'"):
        encode_texts(tokenizer, ["go"], pading=True)
    with pytest.raises(ValueError, match="has 4097 tokens, the context holds 4096"):
        encode_texts(tokenizer, ["a" * 4097])


def test_tokenizer_without_queries_or_special_tokens_is_refused():
    check_tokenizer(byte_tokenizer(SPECIAL_TOKENS), 16)
    with pytest.raises(ValueError, match=r"lacks 4 special token\(s\): .*<new_token_16>"):
        check_tokenizer(byte_tokenizer(SPECIAL_TOKENS), 20)
    with pytest.raises(ValueError, match="<IMG_CONTEXT>"):
        check_tokenizer(byte_tokenizer([token for token in SPECIAL_TOKENS if token != "<IMG_CONTEXT>"]), 16)


@pytest.mark.parametrize(("per_text", "num_images"), [([1, 0], 1), (None, 1)])
def test_matching_image_tokens_pass(per_text, num_images):
    check_image_tokens([[5, 5, 1], [1, 1, 1]], 5, 2, num_images, per_text)


@pytest.mark.parametrize(("per_text", "num_images"), [([0, 1], 1), ([1, 1], 2), (None, 2), (None, 0)])
def test_other_numbers_of_image_tokens_are_refused(per_text, num_images):
    with pytest.raises(ValueError, match=r"each takes 2 <IMG_CONTEXT> tokens, but the prompts hold \[2, 0\]"):
        check_image_tokens([[5, 5, 1], [1, 1, 1]], 5, 2, num_images, per_text)
