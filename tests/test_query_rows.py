"""Claims about the trainable query rows: the model computes the same, and no other row of an embedding moves."""

import torch

from instructvla.nano import untrained_nano
from instructvla.training.query_rows import add_query_rows, fold_query_rows, unfold_query_rows
from tests.training_batch import training_batch

FIRST, COUNT = 2032, 16  # of nano's vocabulary


def stage1_nano():
    return untrained_nano(adapter_config={"experts": 1, "rank": 4, "alpha": 8})


def test_query_rows_change_nothing_at_first():
    plain, rows = stage1_nano(), stage1_nano()
    add_query_rows(rows)
    batch = training_batch(plain)
    torch.testing.assert_close(rows(**batch).loss, plain(**batch).loss, rtol=1e-6, atol=0)
    ids = batch["input_ids"]
    assert torch.equal(rows.get_input_embeddings()(ids), plain.get_input_embeddings()(ids))
    hidden = torch.randn(2, 3, plain.config.text_config.hidden_size)
    torch.testing.assert_close(rows.get_output_embeddings()(hidden), plain.get_output_embeddings()(hidden))


def test_gradients_reach_the_rows_of_both_embeddings():
    model = stage1_nano()
    model.requires_grad_(False)
    add_query_rows(model)
    model(**training_batch(model)).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"language_model.embed_tokens.query_rows", "language_model.lm_head.query_rows"}


def test_folding_puts_the_rows_back_and_leaves_all_others_bit_equal():
    model = stage1_nano()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_query_rows(model)
    with torch.no_grad():
        model.language_model.embed_tokens.query_rows.add_(1)
    folded = fold_query_rows(model.state_dict(), FIRST)
    assert folded.keys() == before.keys()
    changed = [name for name in before if not torch.equal(folded[name], before[name])]
    assert changed == ["language_model.embed_tokens.weight"]
    difference = (folded[changed[0]] - before[changed[0]]).abs().sum(dim=1)
    assert difference.nonzero().flatten().tolist() == list(range(FIRST, FIRST + COUNT))


def test_unfolding_is_the_inverse():
    model = stage1_nano()
    add_query_rows(model)
    with torch.no_grad():
        model.language_model.lm_head.query_rows.mul_(2)
    state = model.state_dict()
    again = unfold_query_rows(fold_query_rows(state, FIRST), state, FIRST)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state if name.endswith("query_rows"))


def test_a_state_without_rows_is_folded_to_itself():
    state = stage1_nano().state_dict()
    assert all(fold_query_rows(state, FIRST)[name] is state[name] for name in state)
