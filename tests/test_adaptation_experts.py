"""Adaptation experts against the equation of section 3.1, written out with plain matrices."""

import torch

from instructvla.adaptation_experts import AdaptedLinear, BaseLinear, ScaleHead


def adapted_linear(experts=2, dropout=0.0) -> AdaptedLinear:
    torch.manual_seed(0)
    layer = AdaptedLinear(6, 5, bias=True, experts=experts, rank=3, alpha=12, dropout=dropout).eval()
    torch.nn.init.normal_(layer.lora_B)
    return layer


def test_output_is_the_base_plus_the_gated_sum_over_experts():
    layer, x, gates = adapted_linear(), torch.randn(2, 4, 6), torch.rand(2, 4, 2)
    expected = x @ layer.weight.T + layer.bias
    for i in range(2):
        expected = expected + 12 / 3 * (gates[..., i : i + 1] * x) @ layer.lora_A[i].T @ layer.lora_B[:, i].T
    torch.testing.assert_close(layer(x, gates), expected, rtol=1e-5, atol=1e-5)  # sums in another order


def test_without_gates_only_the_base_layer_runs():
    layer, x = adapted_linear(), torch.randn(2, 4, 6)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    assert torch.equal(layer(x), BaseLinear.forward(layer, x))


def test_fresh_experts_change_nothing():
    layer = AdaptedLinear(6, 5, bias=False, experts=2, rank=3, alpha=6, dropout=0.05).eval()
    x = torch.randn(1, 3, 6)
    assert torch.equal(layer(x, torch.rand(1, 3, 2)), layer(x))


def test_each_expert_drops_its_own_inputs_in_training():
    layer = adapted_linear(dropout=0.5).train()
    with torch.no_grad():
        layer.lora_A[1].copy_(layer.lora_A[0])
        down = layer.project_down(torch.ones(1, 64, 6))
    assert not torch.equal(down[..., 0, :], down[..., 1, :])


def test_dropout_keeps_the_mean_in_training():
    layer, x = adapted_linear(dropout=0.3), torch.randn(1, 1, 6).expand(1, 4000, 6)
    quiet = layer.project_down(x[:, :1])
    noisy = layer.train().project_down(x).mean(dim=1, keepdim=True)
    torch.testing.assert_close(noisy, quiet, rtol=0, atol=0.05)  # 4,000 draws: standard error about 0.01


def test_scale_head_has_the_depth_and_size_of_the_paper_and_gives_a_distribution():
    head = ScaleHead(1536, experts=2, depth=4, size=128, dropout=0.2).eval()
    shapes = [tuple(layer.weight.shape) for layer in head if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(128, 1536), (128, 128), (128, 128), (2, 128)]
    gates = head(torch.randn(2, 3, 1536))
    torch.testing.assert_close(gates.sum(dim=-1), torch.ones(2, 3))
    assert (gates > 0).all()


def test_scale_head_of_depth_one_is_a_single_layer():
    assert [tuple(p.shape) for p in ScaleHead(8, experts=3, depth=1, size=4, dropout=0.2).parameters()] == [
        (3, 8),
        (3,),
    ]
