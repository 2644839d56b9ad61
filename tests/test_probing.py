"""Probes leave no trace in the model, and ranks share batches in step."""

import pytest
import torch

from instructvla.nano import untrained_nano
from instructvla.training.probing import batched_numbers, evaluating, rank_share, require_counts


def test_modes_and_random_state_come_back_also_after_an_error():
    model = untrained_nano()
    model.train()
    model.vision_model.eval()
    before, state = [module.training for module in model.modules()], torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)
        raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_have_as_many_batches_each_and_together_each_batch_counts_once(world_size):
    batches = ["a", "b", "c", "d", "e"]
    shares = [rank_share(batches, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(batch for share in shares for batch, counts in share if counts) == batches


def test_no_batches_are_none_for_every_rank():
    assert rank_share([], 1, 2) == []


def test_the_last_batch_is_smaller():
    assert batched_numbers([4, 5, 6, 7, 8], 2) == [[4, 5], [6, 7], [8]]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rank_share([1], 2, 2), "rank is 2; with world_size 2 it is 0 to 1"),
        (lambda: batched_numbers([1], 0), "batch_size is 0; give 1 or more"),
        (lambda: require_counts(1, episodes=0), "episodes is 0; give an integer of at least 1"),
        (lambda: require_counts(0, seed=1.5), "seed is 1.5; give an integer of at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
