"""Compiled layers: the same losses and gradients, no graph breaks, and no compilation for new lengths."""

import pytest
import torch
from torch._dynamo.utils import counters

from instructvla.compiled_layers import compile_layers, layers_of
from instructvla.nano import untrained_nano
from instructvla.training.trainable_parts import STAGE_2, train_only
from tests.training_batch import picture, text_batch, training_batch

SMALL_TOWER = {"embed_dim": 32, "depth": 3, "num_heads": 2, "image_size": 56}
SMALL_EXPERT = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "attention_dropout": 0.0}


@pytest.fixture
def model():
    """Of stage 2 and without dropout, whose random numbers a compiled layer draws in another order."""
    torch._dynamo.reset()
    counters.clear()
    adapters = {"rank": 4, "scale_head_size": 8, "dropout": 0.0, "scale_head_dropout": 0.0}
    model = untrained_nano(
        adapter_config=adapters, action_vision_config=SMALL_TOWER, action_expert_config=SMALL_EXPERT
    ).train()
    train_only(model, STAGE_2)
    yield model
    torch._dynamo.reset()


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss = model(**batch).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def batches(model) -> list[dict[str, torch.Tensor]]:
    return [training_batch(model, words=words) for words in (0, 3, 11)] + [text_batch(model)]


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_nothing_breaks_a_graph_and_new_lengths_compile_nothing(model, checkpointing):
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    robot, *others = batches(model)
    expected = gradients(model, robot)
    compile_layers(model, backend="eager")
    compiled = gradients(model, robot)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs <= 8  # the action expert's top layer has one of its own
    for name, gradient in expected.items():
        torch.testing.assert_close(compiled[name], gradient, msg=name)
    for batch in others:
        model(**batch).loss.backward()
    assert counters["stats"]["unique_graphs"] <= graphs + 1  # of one blank image for the chat without pictures
    assert not counters["graph_break"]


def test_parameters_keep_their_names_and_every_tower_is_compiled(model):
    names = list(model.state_dict())
    compile_layers(model, backend="eager")
    assert list(model.state_dict()) == names
    assert len(list(layers_of(model))) == 2 + 3 + 2 + 2
    assert all(layer._compiled_call_impl is not None for layer in layers_of(model))


def test_acting_in_between_compiles_nothing_where_it_is_told_to_run_eagerly(model):
    compile_layers(model, backend="eager")
    model.eval()
    with torch.compiler.set_stance("force_eager"):
        assert model.generate_action(picture(), "go", max_new_tokens=3).actions.shape == (1, 16, 7)
    assert counters["stats"]["unique_graphs"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_inductor_gives_the_same_loss_and_gradients(model, checkpointing):
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    expected = [gradients(model, batch) for batch in batches(model)]
    compile_layers(model)
    for batch, wanted in zip(batches(model), expected, strict=True):
        for name, gradient in gradients(model, batch).items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5, msg=name)
