"""Fused linear layers: the same numbers in fewer operations, from parameters that stay what they are."""

import pytest
import torch

from instructvla.adaptation_experts import AdaptedLinear, BaseLinear
from instructvla.linear_group import LinearGroup
from tests.dispatch_counters import KernelCounter


def adapted(out_features: int, bias: bool, experts: int = 2, dropout: float = 0.0) -> AdaptedLinear:
    layer = AdaptedLinear(24, out_features, bias, experts=experts, rank=4, alpha=8, dropout=dropout)
    torch.nn.init.normal_(layer.lora_B)
    return layer.eval()


def keys_values_queries(**options) -> LinearGroup:
    torch.manual_seed(0)
    return LinearGroup(*(adapted(size, bias=True, **options) for size in (8, 8, 24)))


def gate_and_up(**options) -> LinearGroup:
    torch.manual_seed(0)
    return LinearGroup(BaseLinear(24, 40, bias=False).eval(), adapted(40, bias=False, **options))


def alone(group: LinearGroup, x, gates) -> list[torch.Tensor]:
    return [linear(x, gates) for linear in group.linears]


def inputs(dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, 24, generator=generator).to(dtype), torch.rand(2, 5, 2, generator=generator).to(dtype)


@pytest.mark.parametrize("make", [keys_values_queries, gate_and_up])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@torch.no_grad()
def test_fused_layers_give_what_each_gives_alone(make, dtype, tolerance):
    """Sums in another order: within rounding."""
    group, (x, gates) = make(), inputs(dtype)
    for linear in group.linears:
        linear.to(dtype)
    cases = [(x, gates), (x, gates[:1, :1]), (x[:, :1], gates[:, :1]), (x, None)]
    expected = [alone(group, *case) for case in cases]
    group.fuse()
    assert group.is_fused()
    for case, wanted in zip(cases, expected, strict=True):
        for found, right in zip(group(*case), wanted, strict=True):
            torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance * right.abs().max().item())


@torch.no_grad()
def test_adapted_keys_values_and_queries_take_a_third_of_the_operations():
    group, (x, gates) = keys_values_queries(), inputs()
    counts = []
    for _ in range(2):
        with KernelCounter() as counter:
            group(x, gates)
        counts.append(counter.found.total())
        group.fuse()
    assert counts == [18, 6]


@torch.no_grad()
def test_parameters_keep_their_values_and_what_is_loaded_into_them_is_used():
    group, other, (x, gates) = keys_values_queries(), keys_values_queries(experts=2), inputs()
    before = [{name: value.clone() for name, value in linear.state_dict().items()} for linear in group.linears]
    group.fuse()
    for linear, values in zip(group.linears, before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in linear.state_dict().items())
    for mine, its in zip(group.linears, other.linears, strict=True):
        for parameter in its.parameters():
            parameter.mul_(-3)
        mine.load_state_dict(its.state_dict())
    assert group.is_fused()
    for found, right in zip(group(x, gates), alone(other, x, gates), strict=True):
        torch.testing.assert_close(found, right)


@torch.no_grad()
def test_layers_run_on_their_own_in_training_and_once_their_weights_are_others():
    x, gates = inputs()
    group = keys_values_queries(dropout=0.5)
    group.fuse()
    group.linears[0].train()
    assert not group.is_fused()

    def assigned(linear):
        linear.load_state_dict({name: 2 * value for name, value in linear.state_dict().items()}, assign=True)

    for change in (assigned, torch.nn.Module.double):
        group = keys_values_queries()
        group.fuse()
        for linear in group.linears:
            change(linear)
        assert not group.is_fused()
        place = x.to(group.linears[0].weight.dtype), gates.to(group.linears[0].weight.dtype)
        assert all(map(torch.equal, group(*place), alone(group, *place)))


@torch.no_grad()
def test_quantised_weights_stay_on_their_own():
    class Rounded(torch.Tensor):
        pass

    group = keys_values_queries()
    group.linears[1].weight = torch.nn.Parameter(group.linears[1].weight.data.as_subclass(Rounded))
    group.fuse()
    assert not group.is_fused()
