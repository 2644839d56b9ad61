"""Greedy answers: the same alone and in a batch, with a picture and without; stop strings end them."""

import torch

from instructvla.nano import untrained_nano
from instructvla.training.greedy_answers import StopStrings, before_any, greedy_answers, greedy_continuations
from tests.training_batch import picture

WITH_PICTURE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]}]
WITHOUT = [{"role": "user", "content": "hello"}]
OTHER = [{"role": "user", "content": "what shall I do with this cup on the table?"}]


def test_answers_do_not_depend_on_the_batch():
    model = untrained_nano().eval()
    both = greedy_answers(model, model.processor, [WITHOUT, WITH_PICTURE], [picture()], max_new_tokens=5)
    alone = [
        *greedy_answers(model, model.processor, [WITHOUT], [], max_new_tokens=5),
        *greedy_answers(model, model.processor, [WITH_PICTURE], [picture()], max_new_tokens=5),
    ]
    assert both == alone and all(isinstance(text, str) and text for text in both)


def test_adapters_can_be_left_off():
    model = untrained_nano().eval()
    answers = greedy_answers(model, model.processor, [WITHOUT], [], max_new_tokens=5, adapters=False)
    assert len(answers) == 1


def test_a_stop_string_ends_an_answer_but_not_its_neighbours():
    model = untrained_nano().eval()
    texts = [model.processor.apply_chat_template(chat, add_generation_prompt=True) for chat in (WITHOUT, OTHER)]
    whole = greedy_continuations(model, model.processor, texts, [], max_new_tokens=6)
    stop = next(piece for piece in (whole[0][i : i + 3] for i in range(1, len(whole[0]))) if piece not in whole[1])
    cut = greedy_continuations(model, model.processor, texts, [], max_new_tokens=6, until=[stop])
    assert cut == [whole[0][: whole[0].index(stop)], whole[1]]


def test_a_stop_string_in_the_prompt_ends_nothing():
    model = untrained_nano().eval()
    texts = [model.processor.apply_chat_template(WITHOUT, add_generation_prompt=True)]
    whole = greedy_continuations(model, model.processor, texts, [], max_new_tokens=4)
    assert whole == greedy_continuations(model, model.processor, texts, [], max_new_tokens=4, until=["assistant\n"])


def test_generation_ends_with_the_stop_string_of_the_answer_alone():
    tokenizer = untrained_nano().processor.tokenizer
    prompt, answer = tokenizer("yes").input_ids, tokenizer("no").input_ids
    ids = torch.tensor([prompt + answer, prompt + prompt[:1] * len(answer)])
    assert StopStrings(tokenizer, len(prompt), ["no"])(ids, None).tolist() == [True, False]
    assert StopStrings(tokenizer, len(prompt), ["yesno"])(ids, None).tolist() == [False, False]


def test_text_is_cut_at_the_first_of_several_strings():
    assert before_any("a b c", ["c", "b"]) == "a "
    assert before_any("a b c", ["d"]) == before_any("a b c", []) == "a b c"
