"""Flow matching: each equation against its closed form, and the diffusers schedulers against plain Euler steps."""

import math

import pytest
import torch

from instructvla.configuration_sections import FlowConfig
from instructvla.flow_matching import (
    flow_matching_loss,
    flow_steps,
    integrate,
    interpolate,
    make_scheduler,
    sample_flow_time,
    target_velocity,
    time_embedding,
)

FLOW = FlowConfig()


def chunk(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(seed))


def test_path_starts_at_noise_and_ends_at_data():
    actions, noise = chunk(0), chunk(1)
    assert torch.equal(interpolate(actions, noise, torch.zeros(2), 0.001), noise)
    torch.testing.assert_close(interpolate(actions, noise, torch.ones(2), 0.001), actions + 0.001 * noise)


def test_target_is_the_derivative_of_the_path():
    actions, noise, step = chunk(0).double(), chunk(1).double(), 1e-3
    before, after = (
        interpolate(actions, noise, torch.full((2,), t, dtype=torch.float64), 0.001) for t in (0.5, 0.5 + step)
    )
    torch.testing.assert_close((after - before) / step, target_velocity(actions, noise, 0.001))


def test_flow_time_follows_the_papers_beta_distribution():
    torch.manual_seed(0)
    tau = sample_flow_time(200_000, FLOW, torch.device("cpu"))
    assert tau.min() >= 0
    assert tau.max() <= 0.999
    a, b = 1.5, 1.0
    assert tau.mean().item() == pytest.approx(0.999 * (1 - a / (a + b)), abs=3e-3)  # standard error 6e-4
    variance = 0.999**2 * a * b / ((a + b) ** 2 * (a + b + 1))
    assert tau.var().item() == pytest.approx(variance, rel=2e-2)


def test_time_embedding_has_the_papers_periods():
    embedding = time_embedding(torch.tensor([0.3]), 8, max_period=100.0)[0]
    frequencies = [math.exp(-j * math.log(100) / 3) for j in range(4)]
    expected = [math.sin(0.3 * f) for f in frequencies] + [math.cos(0.3 * f) for f in frequencies]
    torch.testing.assert_close(embedding, torch.tensor(expected))


def test_padded_actions_do_not_count_in_the_loss():
    velocity, target = chunk(0), chunk(1)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    expected = torch.cat([(velocity - target)[0, :2], (velocity - target)[1]]).square().mean()
    torch.testing.assert_close(flow_matching_loss(velocity, target, mask), expected)
    torch.testing.assert_close(flow_matching_loss(velocity, target), (velocity - target).square().mean())
    assert flow_matching_loss(velocity, target, torch.zeros_like(mask)) == 0


def test_each_integration_has_a_scheduler_of_its_own():
    assert make_scheduler(FLOW) is not make_scheduler(FLOW)
    assert make_scheduler(FLOW).config.invert_sigmas


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_default_scheduler_takes_uniform_euler_steps(steps):
    seen = []

    def velocity(x, step):
        seen.append(step)
        return torch.sin(3 * x) + uniform.times[step]

    x = noise = chunk(0)
    for i in range(steps):
        x = x + (torch.sin(3 * x) + i / steps) / steps
    uniform = flow_steps(FLOW, steps, noise.device)
    for _ in range(2):  # steps are reused from chunk to chunk
        torch.testing.assert_close(integrate(velocity, noise, uniform), x, rtol=1e-5, atol=1e-5)
    assert uniform.times.tolist() == pytest.approx([i / steps for i in range(steps)], abs=1e-6)
    assert seen == 2 * list(range(steps))


OTHER_SCHEDULERS = [
    ("FlowMatchEulerDiscreteScheduler", {}),
    ("FlowMatchHeunDiscreteScheduler", {}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
]


@pytest.mark.parametrize(("name", "arguments"), OTHER_SCHEDULERS)
def test_any_flow_scheduler_of_diffusers_reaches_the_data_of_a_straight_flow(name, arguments):
    data, noise = chunk(0), chunk(1)
    flow = FlowConfig(scheduler=name, scheduler_kwargs=arguments)
    steps = flow_steps(flow, 10, noise.device)
    result = integrate(lambda x, step: target_velocity(data, noise, 0.0), noise, steps)
    torch.testing.assert_close(integrate(lambda x, step: target_velocity(data, noise, 0.0), noise, steps), result)
    torch.testing.assert_close(result, data, rtol=0, atol=2e-2)  # some stop at a last sigma of 0.001 to 0.01


def test_state_stays_float32_when_the_model_is_bfloat16():
    seen = []
    steps = flow_steps(FLOW, 4, torch.device("cpu"))
    result = integrate(lambda x, step: seen.append(x.dtype) or x.bfloat16(), chunk(0), steps)
    assert {*seen, result.dtype} == {torch.float32}
