"""The checksum of weights: the same for the same weights, another for any other."""

import copy

import torch

from instructvla.evaluation.weights_fingerprint import weights_fingerprint


def test_it_tells_weights_apart_and_nothing_else():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
    same = copy.deepcopy(model).eval()
    assert weights_fingerprint(same) == weights_fingerprint(model) and len(weights_fingerprint(model)) == 16
    for name in ("0.weight", "1.running_mean"):
        other = copy.deepcopy(model)
        other.state_dict()[name].view(-1)[0] += 1
        assert weights_fingerprint(other) != weights_fingerprint(model)
    renamed = torch.nn.ModuleDict({"a": model[0], "b": model[1]})
    assert weights_fingerprint(renamed) != weights_fingerprint(model)
