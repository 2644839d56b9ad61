"""Greedy answers: the same alone and in a batch, with a picture and without."""

from instructvla.nano import untrained_nano
from instructvla.training.greedy_answers import greedy_answers
from tests.training_batch import picture

WITH_PICTURE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]}]
WITHOUT = [{"role": "user", "content": "hello"}]


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
