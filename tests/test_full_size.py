"""The released size with random weights: its sizes, where they lie, and that it acts and speaks."""

import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.full_size import untrained_2b
from tests.training_batch import picture


def test_it_is_the_released_size_made_where_it_is_used():
    model = untrained_2b("meta")  # no memory
    with torch.device("meta"):
        released = type(model)(InstructVLAConfig.instructvla_2b())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in released.state_dict().items()}
    assert model.device.type == "meta" and {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() is torch.float32


def narrow(seed: int = 0):
    """Everything is small but the vocabulary."""
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    return untrained_2b(
        seed=seed,
        vision_config=InstructVLAConfig.nano().vision_config,
        text_config={**sizes, "num_key_value_heads": 2},
        action_vision_config=None,
        action_expert_config=sizes,
        adapter_config={"rank": 4},
    )


def test_with_other_sizes_it_acts_and_speaks():
    out = narrow().generate_action([picture(0), picture(1)], ["go", "stop"], think=[True, False], max_new_tokens=3)
    assert out.actions.shape == (2, 16, 7) and out.actions.isfinite().all()
    assert len(out.context.response_ids[0]) == 3 and out.response[1] is None


def test_the_same_seed_gives_the_same_weights_and_the_global_random_state_stays():
    state = torch.random.get_rng_state()
    models = [narrow(seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    first, same, other = (model.projector.linear_1.weight for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
