"""Claims about a checkpoint's model in another configuration: it keeps the weights it has, and invents none."""

import logging

import pytest
import torch

from instructvla.nano import untrained_nano
from instructvla.processing.chat_prompts import query_token
from instructvla.training.changed_model import changed_model
from tests.training_batch import picture

WITHOUT_TOWER = {"action_vision_config": None}
WITHOUT_FILM = {"action_vision_config": {"film": False}}


@pytest.fixture
def messages(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    return caplog


@pytest.mark.parametrize(
    "settings", [WITHOUT_TOWER, WITHOUT_FILM, {"num_action_queries": 4}, {"adapter_config": {"experts": 0}}]
)
def test_what_both_have_is_kept_and_what_is_left_out_is_told(settings, messages):
    old = untrained_nano()
    changed = changed_model(old, settings, "mine")
    tensors, kept = old.state_dict(), changed.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in kept.items())
    left_out = tensors.keys() - kept.keys()
    assert bool(left_out) == ("mine: " in messages.text) == ("num_action_queries" not in settings)
    assert f"{len(left_out)} tensors are left out" in messages.text or not left_out
    assert all(parameter.requires_grad for parameter in changed.parameters())
    assert changed.generate_action(picture(), "go").actions.shape == (1, 16, 7)


def test_more_queries_get_tokens_where_the_vocabulary_has_room():
    model = untrained_nano(num_action_queries=4)
    queries = model.config.num_action_queries
    changed = changed_model(model, {"num_action_queries": queries + 3}, "mine")
    assert changed.config.num_action_queries == queries + 3
    last = changed.processor.tokenizer.convert_tokens_to_ids(query_token(queries + 2))
    assert last == changed.config.query_token_id + queries + 2
    assert changed.generate_action(picture(), "go").actions.shape == (1, 16, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon"),
        ({"text_config": {"num_hidden_layers": 9}}, "changes text_config of mine, which has no weights for that"),
        ({"num_action_queries": 500}, "num_action_queries|query_token_id"),
    ],
)
def test_what_needs_other_weights_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        changed_model(untrained_nano(), settings, "mine")
