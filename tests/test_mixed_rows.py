"""Rows of one call that think and rows that don't: each gets what it would get alone, in one pass of every part."""

import pytest
import torch

from instructvla import ActionContext
from instructvla.nano import untrained_nano
from tests.lively_experts import lively
from tests.parity import relative_error
from tests.training_batch import picture

TEXTS = ["push", "put the big spoon on the blue towel next to the sink", "open the drawer", "wipe the table", "stop"]
WORDS = 6
TOLERANCE = 1e-4  # float32 on other matrix shapes


@pytest.fixture(scope="module", params=["growing", "fixed"])
def model(request):
    model = lively(experts=2)
    if request.param == "fixed":
        model.compile_for_inference(rows=(1,), modes=("act",), instruction_tokens=8, progress=False)
    return model


def act(model, rows, **options):
    noise = torch.stack([torch.randn(16, 7, generator=torch.Generator().manual_seed(row)) for row in rows])
    images = [picture(row) for row in rows]
    return model.generate_action(images, [TEXTS[row] for row in rows], noise=noise, max_new_tokens=WORDS, **options)


def test_each_row_of_a_mixed_call_equals_the_row_alone(model):
    spoken = act(model, [2, 3], think=True).context.rows()  # words that row 2 acts on, and row 3 says again
    contexts = [None, None, *spoken, None]
    thinks = [True, False, False, True, None]
    together = act(model, range(5), think=thinks, context=contexts)
    assert [words is None for words in together.response] == [False, True, False, False, False]
    for row in range(5):
        alone = act(model, [row], think=thinks[row], context=contexts[row])
        assert together.response[row] == alone.response[0]
        assert together.context.response_ids[row] == alone.context.response_ids[0]
        assert relative_error(together.latent_actions[row], alone.latent_actions[0]) < TOLERANCE
        torch.testing.assert_close(together.normalized_actions[row], alone.normalized_actions[0], rtol=1e-3, atol=1e-4)


def test_rows_with_words_and_rows_without_act_together(model):
    """No row of this call thinks, and none waits for words."""
    known = act(model, [0], think=True).context
    together = act(model, [0, 1], think=False, context=[known, None])
    assert together.response == [known.response[0], None]
    for row, context in enumerate([known, None]):
        alone = act(model, [row], think=False, context=context)
        assert relative_error(together.latent_actions[row], alone.latent_actions[0]) < TOLERANCE


def passes(model) -> list[int]:
    """Tokens of each pass of the language model from now on."""
    tokens = []
    model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append((args[0] if args else kwargs["inputs_embeds"]).shape[1]), with_kwargs=True
    )
    return tokens


def test_a_silent_row_adds_no_pass():
    model = untrained_nano()
    found = passes(model)
    act(model, [0, 1], think=True)
    thinking = len(found)
    found.clear()
    act(model, [0, 1], think=[True, False])
    assert 2 <= len(found) <= thinking


class Repeating(torch.nn.Module):
    """A vocabulary projection that always says the same token, and then the token that ends the words."""

    def __init__(self, token: int, end: int, times: int, vocabulary: int):
        super().__init__()
        self.token, self.end, self.times, self.vocabulary = token, end, times, vocabulary

    def forward(self, hidden):
        said = torch.full(hidden.shape[:-1], self.token)
        if hidden.ndim == 3:  # a draft: whatever its tokens, the last position asks for what follows them
            said[:, self.times :] = self.end
        return torch.nn.functional.one_hot(said, self.vocabulary).float()


def test_an_answer_that_still_holds_beside_a_silent_row_costs_one_pass():
    model = untrained_nano()
    text = model.config.text_config
    model.language_model.lm_head = Repeating(500, model.config.query_token_id, WORDS, text.vocab_size)
    draft = ActionContext(TEXTS[0], "…", [(500,) * WORDS], torch.zeros(1, 16, text.hidden_size))
    alone = act(model, [1], think=False)
    found = passes(model)
    out = act(model, [0, 1], think=[True, False], context=[draft, None])
    assert len(found) == 1
    assert out.context.response_ids == ((500,) * WORDS, None)
    assert relative_error(out.latent_actions[1], alone.latent_actions[0]) < TOLERANCE


def test_a_latent_action_is_reused_from_a_context_per_row(model):
    contexts = [act(model, [row], think=False).context for row in range(2)]
    joined = act(model, [0, 1], context=ActionContext.joined(contexts), reuse_latent=True)
    listed = act(model, [0, 1], context=contexts, reuse_latent=True)
    assert torch.equal(joined.actions, listed.actions)
    assert torch.equal(listed.latent_actions[1], contexts[1].latent_actions[0])


def test_the_rows_of_a_context_are_its_own_and_join_to_it(model):
    context = act(model, [0, 1], think=[True, False]).context
    rows = context.rows()
    assert [one.response for one in rows] == [(words,) for words in context.response]
    again = ActionContext.joined(rows)
    assert again.response_ids == context.response_ids
    assert torch.equal(again.latent_actions, context.latent_actions)


BAD_CALLS = {
    "think has 1 entries for 2 rows; give one value, or one per row": {"think": [True]},
    "think has 3 entries for 2 rows": {"think": [True, False, True]},
    r"think is \[True, 'no'\], but it must be True, False or None": {"think": [True, "no"]},
    "Got 1 contexts for 2 rows; give one per row": {"context": [None]},
    "reuse_latent=True needs the context": {"context": [None, None], "reuse_latent": True},
    "text is 3, but it must be an instruction": {"text": 3},
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_rows_are_refused_before_the_model_runs(model, message):
    found = passes(model)
    with pytest.raises(ValueError, match=message):
        model.generate_action(**({"images": [picture(0), picture(1)], "text": TEXTS[:2]} | BAD_CALLS[message]))
    assert found == []


def test_thinking_in_one_row_of_a_reused_latent_is_refused(model):
    context = act(model, [0, 1], think=False).context
    with pytest.raises(ValueError, match="can't think"):
        act(model, [0, 1], think=[False, True], context=context, reuse_latent=True)


def test_a_context_of_another_instruction_is_named(model):
    context = act(model, [0], think=False).context
    with pytest.raises(ValueError, match=r"made for \['push'\], but the instruction is \['open the drawer'\]"):
        act(model, [1, 2], context=[None, context])
