"""Answers and scores: the same alone and in batches, in order, with several pictures, tiles or none."""

import math

import pytest
import torch

from instructvla.evaluation.multimodal.chat_model import ChatModel, Prompt, batches
from instructvla.evaluation.multimodal.image_tiles import Tiling
from instructvla.nano import untrained_nano
from instructvla.processing.chat_prompts import IMAGE_TOKEN
from tests.lively_experts import lively
from tests.training_batch import picture

WIDE = picture(width=160, height=60)
PROMPTS = [
    Prompt("hello", max_new_tokens=5),
    Prompt("what is this?", (picture(),), max_new_tokens=5),
    Prompt("which is wider?", (picture(1), WIDE), max_new_tokens=5, tiling=Tiling(max_tiles=3)),
    Prompt("and now?", (WIDE,), max_new_tokens=3),
]


def chat_model(**options) -> ChatModel:
    return ChatModel(untrained_nano().eval(), **options)


def test_answers_and_their_order_do_not_depend_on_the_batch_size():
    alone = chat_model(batch_size=1).answers(PROMPTS)
    assert alone == chat_model(batch_size=3).answers(PROMPTS)
    assert len(set(alone)) == len(PROMPTS)


def test_a_batch_holds_prompts_of_the_same_limits_the_longest_first():
    prompts = [Prompt("a"), Prompt("a b c"), Prompt("x", (picture(),)), Prompt("a b"), Prompt("a", max_new_tokens=3)]
    assert list(batches(prompts, 2)) == [[2, 1], [3, 0], [4]]


def test_pictures_are_numbered_and_each_has_room_for_its_tiles():
    model = chat_model()
    (text,), (tiles,) = model.rendered(PROMPTS[2:3])
    before, first, second = text.split("<img>")
    room = model.processor.num_image_tokens
    assert before.endswith("<image 1>") and first.endswith("<image 2>")
    assert [first.count(IMAGE_TOKEN), second.count(IMAGE_TOKEN)] == [room, 4 * room]  # three tiles and a thumbnail
    assert len(tiles) == 5 and second.endswith("which is wider?<|im_end|>\n<|im_start|>assistant\n")


def test_one_tile_gives_the_prompt_that_training_shows():
    model = chat_model()
    content = [{"type": "image"}, {"type": "text", "text": "what is this?"}]
    trained = model.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert model.rendered(PROMPTS[1:2])[0] == [trained]


def test_an_answer_ends_before_its_stop_string():
    whole = chat_model().answers(PROMPTS[:1])[0]
    stop = whole[2:5]
    (cut,) = chat_model().answers([Prompt("hello", max_new_tokens=5, until=(stop, "never said"))])
    assert cut == whole[: whole.index(stop)] != whole


def test_the_base_vlm_can_be_asked():
    adapted, base = (ChatModel(lively(2).eval(), adapters=adapters) for adapters in (True, False))
    assert adapted.log_likelihoods(PROMPTS[:1], ["yes"]) != base.log_likelihoods(PROMPTS[:1], ["yes"])


def test_log_likelihoods_do_not_depend_on_the_batch():
    words = ["yes", "no, it is not", "", "two"]
    alone = chat_model(batch_size=1).log_likelihoods(PROMPTS, words)
    together = chat_model(batch_size=4).log_likelihoods(PROMPTS, words)
    for (one, one_greedy), (other, other_greedy) in zip(alone, together, strict=True):
        assert math.isclose(one, other, rel_tol=1e-5) and one_greedy == other_greedy
    assert alone[2] == (0.0, True) and all(score < 0 for score, _ in (alone[0], alone[1], alone[3]))


def test_a_likelihood_is_the_product_of_its_tokens_probabilities():
    model = chat_model()
    text, continuation = model.rendered(PROMPTS[:1])[0][0], "yes it is"
    ids = model.processor.encode_text(text)
    tail = model.processor.encode_text(continuation)
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([ids + tail])).logits[0].double()
    logits[:, model.model.config.image_token_id] = -torch.inf
    expected = sum(logits[len(ids) + i - 1].log_softmax(-1)[token].item() for i, token in enumerate(tail))
    ((score, _),) = model.log_likelihoods(PROMPTS[:1], [continuation])
    assert math.isclose(score, expected, rel_tol=1e-5)


def test_what_the_model_says_greedily_is_greedy():
    model = chat_model()
    (said,) = model.answers(PROMPTS[:1])
    assert model.log_likelihoods(PROMPTS[:1], [said])[0][1]
    assert not model.log_likelihoods(PROMPTS[:1], ["x" + said])[0][1]


def test_a_checkpoint_is_loaded_in_the_dtype_asked_for():
    assert ChatModel.load("nano", "cpu").model.dtype == torch.float32
    assert ChatModel.load("nano", "cpu", "bfloat16").model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "no/such/folder"}, "neither a folder nor the name of a Hub repository"),
        ({"name": "nano", "device": "abacus"}, "abacus"),
        ({"name": "nano", "device": "cpu", "dtype": "int8"}, "'int8', but it must be one of float32"),
        ({"name": "nano", "device": "cpu", "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_can_not_be_loaded_is_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        ChatModel.load(**options)


def test_an_image_that_is_none_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"images\[0\] can't be read"):
        chat_model().answers([Prompt("what?", (str(tmp_path / "a.png"),))])
