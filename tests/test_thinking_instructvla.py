"""Thinking again: the words of the last answer cost one pass where they still hold, and nothing else changes."""

from dataclasses import replace

import pytest
import torch

from instructvla.nano import untrained_nano
from instructvla.thinking_instructvla import common_prefix
from tests.training_batch import picture

TEXTS = ["put the spoon on the towel", "open the drawer"]
ANSWERS = ["I will pick up the spoon.", "The drawer is closed, so I will open it."]


class RememberedHead(torch.nn.Module):
    """Says a script at first, step by step; then, after each hidden state, what it said after the nearest one."""

    def __init__(self, rows: list[list[int]], vocabulary: int):
        super().__init__()
        self.rows, self.vocabulary, self.scripted = rows, vocabulary, True
        self.states: list[torch.Tensor] = []
        self.tokens: list[int] = []

    def forward(self, hidden):
        if self.scripted:
            step = len(self.states) // len(self.rows)
            tokens = [row[min(step, len(row) - 1)] for row in self.rows]
            self.states += list(hidden)
            self.tokens += tokens
            said = torch.tensor(tokens)
        else:
            distances = torch.cdist(hidden.reshape(-1, hidden.shape[-1]), torch.stack(self.states))
            said = torch.tensor(self.tokens)[distances.argmin(dim=-1)].view(hidden.shape[:-1])
        return torch.nn.functional.one_hot(said, self.vocabulary).float()


@pytest.fixture(params=[False, True], ids=["growing", "fixed"])
def thinker(request):
    """A model that gave the answers once, with what that gave, and now repeats itself; counting its adapted passes."""
    model = untrained_nano(adapter_config={"experts": 1})
    if request.param:
        model.compile_for_inference(rows=(2,), modes=("act",), instruction_tokens=8, progress=False)
    end = model.config.query_token_id
    rows = [model.processor.encode_text(answer) + [end] for answer in ANSWERS]
    model.language_model.lm_head = RememberedHead(rows, model.config.text_config.vocab_size)
    first = think(model)
    assert first.response == ANSWERS
    model.language_model.lm_head.scripted = False
    model.passes = []
    model.language_model.layers[0].register_forward_pre_hook(lambda _, inputs: model.passes.append(inputs[0].shape[1]))
    return model, first


def think(model, **options):
    noise = torch.zeros(2, 16, 7)
    return model.generate_action([picture(0), picture(1)], TEXTS, noise=noise, think=True, **options)


def test_an_answer_that_still_holds_costs_one_pass(thinker):
    model, first = thinker
    again = think(model, context=first.context)
    assert again.response == ANSWERS
    assert again.context.response_ids == first.context.response_ids
    assert len(model.passes) == 1
    torch.testing.assert_close(again.latent_actions, first.latent_actions, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "wrong", ["I will pick up the fork.", "I will pick up", "", "I will pick up the spoon. Then I"]
)
def test_a_wrong_draft_changes_no_word(thinker, wrong):
    model, first = thinker
    ids = (tuple(model.processor.encode_text(wrong)), first.context.response_ids[1])
    again = think(model, context=replace(first.context, response_ids=ids, response=(wrong, ANSWERS[1])))
    assert again.response == ANSWERS
    assert len(model.passes) > 2
    torch.testing.assert_close(again.latent_actions, first.latent_actions, rtol=1e-4, atol=1e-4)


def test_a_draft_beyond_the_limit_is_not_tried(thinker):
    model, first = thinker
    again = think(model, context=first.context, max_new_tokens=3)
    assert [len(ids) for ids in again.context.response_ids] == [3, 3]


def test_a_context_without_words_has_no_draft(thinker):
    model, first = thinker
    silent = replace(first.context, response_ids=(None, None), response=(None, None))
    assert think(model, context=silent).response == ANSWERS


def test_common_prefix():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([], [1]) == 0
