"""Background thinking: actions never wait for words, words change between actions, and a failed thought is told."""

import threading

import pytest
import torch

from instructvla.background_thinking import BackgroundThinker
from instructvla.generation_instructvla import ActionContext, InstructVLAActionOutput
from instructvla.nano import untrained_nano
from tests.training_batch import picture


def context(text: str, words: str) -> ActionContext:
    return ActionContext((text,), (words,), ((1,),), torch.zeros(1, 2, 3))


class Slow:
    """A model whose background thoughts wait until they are let go; it tells what each action was made from."""

    def __init__(self):
        self.gate, self.ended, self.thoughts, self.failure = threading.Event(), threading.Event(), [], None

    def encode(self, images, text, think, context, max_new_tokens):
        self.gate.wait(10)
        self.thoughts.append(images)
        try:
            if self.failure is not None:
                raise self.failure
            return globals()["context"](text, f"saw {images}")
        finally:
            self.ended.set()

    def generate_action(self, images, text, think=None, context=None, max_new_tokens=None):
        made = context if not think else globals()["context"](text, f"saw {images}")
        return InstructVLAActionOutput(response=list(made.response), context=made)


@pytest.fixture
def slow():
    model = Slow()
    yield model
    model.gate.set()


def let_go(model, policy) -> None:
    model.gate.set()
    assert model.ended.wait(10)
    while not policy.thought.done():  # the worker thread is about to store the result
        pass
    model.gate.clear()
    model.ended.clear()


def test_actions_go_on_with_the_last_words_until_a_thought_has_ended(slow):
    with BackgroundThinker(slow) as policy:
        said = [policy.act(number, "tidy up").response[0] for number in range(4)]
        assert said == ["saw 0"] * 4
        let_go(slow, policy)
        assert policy.act(4, "tidy up").response == ["saw 1"]  # the thought began at the second call
        slow.gate.set()


def test_a_thought_begins_every_so_many_calls(slow):
    slow.gate.set()
    with BackgroundThinker(slow, refresh=3) as policy:
        for number in range(8):
            policy.act(number, "tidy up")
            if policy.thought is not None:
                policy.thought.result(10)
    assert slow.thoughts == [3, 6]


def test_a_new_instruction_is_thought_about_at_once_and_drops_the_old_thought(slow):
    with BackgroundThinker(slow) as policy:
        policy.act(0, "tidy up")
        policy.act(1, "tidy up")
        assert policy.act(2, "open the drawer").response == ["saw 2"]
        assert policy.context.instruction == ("open the drawer",)
        slow.gate.set()


def test_a_failed_thought_is_told_at_the_next_call(slow):
    slow.failure = ValueError("the picture is broken")
    with BackgroundThinker(slow) as policy:
        policy.act(0, "tidy up")
        policy.act(1, "tidy up")
        let_go(slow, policy)
        with pytest.raises(ValueError, match="the picture is broken"):
            policy.act(2, "tidy up")
        slow.gate.set()


def test_with_a_model_the_words_are_those_of_thinking_about_the_same_picture():
    model = untrained_nano()
    expected = model.encode(picture(1), "go", think=True, max_new_tokens=4)
    with BackgroundThinker(model, max_new_tokens=4) as policy:
        for seed in (0, 1):
            policy.act(picture(seed), "go")
        policy.thought.result(60)
        out = policy.act(picture(2), "go", noise=torch.zeros(1, 16, 7))
    assert out.response == list(expected.response)
    alone = model.generate_action(picture(2), "go", context=expected, think=False, noise=torch.zeros(1, 16, 7))
    torch.testing.assert_close(out.actions, alone.actions)


@pytest.mark.parametrize("options", [{"refresh": 0}, {"max_new_tokens": 0}])
def test_numbers_are_checked(options):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        BackgroundThinker(None, **options)
