"""The embedded nano model: deterministic, with a processor that fits, and honest about being untrained."""

import torch

from instructvla.nano import nano_processor, untrained_nano


def test_weights_follow_from_the_seed_and_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = untrained_nano(seed=1), untrained_nano(seed=1), untrained_nano(seed=2)
    assert torch.equal(torch.rand(3), expected)
    name = "action_expert.action_head.6.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_processor_fits_the_model():
    model = untrained_nano()
    assert model.processor.image_token_id == model.config.image_token_id
    assert model.processor.query_token_ids[0] == model.config.query_token_id
    assert len(model.processor.tokenizer) == model.config.text_config.vocab_size
    assert model.processor.tokenizer.eos_token_id == model.config.text_config.eos_token_id


def test_statistics_are_named_untrained():
    assert list(nano_processor().statistics) == ["untrained"]
