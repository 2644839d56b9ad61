"""What training needs of the forward pass: checkpointing, autocast, gradients where they belong, bad padding."""

import pytest
import torch

from instructvla.nano import untrained_nano
from instructvla.training.trainable_parts import STAGE_1, STAGE_2, train_only
from tests.training_batch import text_batch, training_batch


def lively_model(experts: int = 2, **fields):
    """Dropout everywhere, and experts and FiLM that matter."""
    model = untrained_nano(adapter_config={"rank": 4, "experts": experts, "scale_head_size": 8}, **fields)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "film" in name:
            torch.nn.init.normal_(parameter, std=0.01)
        if "embed_tokens" in name:  # to unit size: at 0.02 the first norm would enlarge every rounding fiftyfold
            parameter.data *= 50
    return model.train()


def step(model, batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients, the same dropout each time."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model, batch) -> int:
    """What the forward pass keeps for the backward pass, beside the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(**batch)
    assert output.loss.requires_grad
    return sum(kept.values())


# Gradient checkpointing


@pytest.mark.parametrize("train", [None, STAGE_1, STAGE_2], ids=["everything", "stage 1", "stage 2"])
def test_checkpointing_every_tower_changes_neither_loss_nor_gradients_with_dropout_on(train):
    model = lively_model(experts=1 if train is STAGE_1 else 2)
    if train is not None:
        train_only(model, train)
    batch = training_batch(model)
    loss, gradients = step(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert all(
        layer.gradient_checkpointing
        for layers in (
            model.vision_model.encoder.layers,
            model.language_model.layers,
            model.action_expert.vision.blocks,
            model.action_expert.transformer.layers,
        )
        for layer in layers
    )
    again, checkpointed = step(model, batch)
    assert torch.equal(again, loss)
    assert checkpointed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(checkpointed[name], gradient), name


def test_checkpointing_keeps_less_than_half_for_the_backward_pass():
    model = lively_model()
    batch = training_batch(model)
    plain = kept_bytes(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert kept_bytes(model, batch) < plain / 2


def test_checkpointing_gives_a_frozen_vision_tower_no_backward_pass():
    """transformers makes the outputs of all embeddings require gradients, SigLIP's patches included."""
    model = lively_model()
    train_only(model, STAGE_2)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    seen = []
    model.projector.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    model(**training_batch(model)).loss.backward()
    assert seen == [False]


def test_reentrant_checkpoints_are_refused():
    with pytest.raises(ValueError, match="use_reentrant is True in .* but it must be False"):
        untrained_nano().gradient_checkpointing_enable({"use_reentrant": True})


# Precision


@pytest.mark.parametrize("experts", [1, 2])
def test_bfloat16_autocast_is_close_to_float32(experts):
    model = lively_model(experts).eval()
    batch = training_batch(model)
    expected, gradients = step(model, batch)
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected, rtol=0.02, atol=0)  # bfloat16 has 8 bits
    for name, gradient in gradients.items():
        if gradient.norm() > 1e-6:
            own = model.get_parameter(name).grad
            assert torch.cosine_similarity(own.flatten(), gradient.flatten(), dim=0) > 0.99, name


# Where gradients go


@pytest.mark.parametrize(
    ("experts", "train"), [(1, STAGE_1), (2, STAGE_2), (2, [*STAGE_2, "action_expert"])], ids=["1", "2", "2 joint"]
)
def test_gradients_reach_exactly_what_is_trained(experts, train):
    model = lively_model(experts, state_dim=3)
    train_only(model, train)
    _, gradients = step(model, training_batch(model, state=[[0.1] * 3, [0.2] * 3]))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == trained
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name


def test_the_base_pass_builds_no_graph_and_the_adapted_pass_does():
    model = lively_model()
    train_only(model, STAGE_2)
    seen = []
    model.language_model.norm.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    model(**training_batch(model))
    assert seen == [False, True]


# Chat without pictures


def test_a_training_batch_without_pictures_runs_the_vision_tower_and_its_loss_is_bit_equal():
    model = untrained_nano(adapter_config={"dropout": 0.0, "scale_head_dropout": 0.0})
    batch, images = text_batch(model), []
    model.vision_model.register_forward_hook(lambda module, args, output: images.append(len(args[0])))
    expected = model(**batch).loss
    assert images == []
    model.train()
    loss = model(**batch).loss
    assert images == [1]
    assert torch.equal(loss, expected)
    loss.backward()
    assert model.projector.linear_2.weight.grad.abs().max() == 0  # there, so that its ranks reduce it together


# Bad padding


def test_nan_in_the_padding_of_a_chunk_changes_nothing_and_elsewhere_the_loss_is_nan():
    model = untrained_nano()
    batch = training_batch(model)
    batch["actions"][:, 12:] = 0
    expected, gradients = step(model, batch)
    batch["actions"][:, 12:] = torch.tensor([float("nan"), float("inf")] * 14).view(4, 7)
    loss, with_nan = step(model, batch)
    assert torch.equal(loss, expected)
    assert all(torch.equal(with_nan[name], gradients[name]) for name in gradients)
    batch["actions"][0, 0, 0] = float("nan")
    assert model(**batch).loss.isnan()


def test_finite_padding_reaches_the_noisy_chunk_as_released():
    model = untrained_nano()
    batch = training_batch(model)
    expected = model(**batch).flow_loss
    batch["actions"][:, 12:] += 1
    assert model(**batch).flow_loss != expected
