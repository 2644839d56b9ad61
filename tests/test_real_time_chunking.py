"""Real-time chunking: the weights and the guidance of its equations, and chunks that go on where the last one leads."""

import math

import pytest
import torch

from instructvla.nano import untrained_nano
from instructvla.real_time_chunking import ChunkGuidance, guidance_weight, guided, prefix_weights
from tests.training_batch import picture


def test_weights_are_those_of_equation_5():
    weights = prefix_weights(8, known=6, delay=2).tolist()
    fading = [c * (math.exp(c) - 1) / (math.e - 1) for c in ((6 - i) / 5 for i in range(2, 6))]
    assert weights == pytest.approx([1, 1, *fading, 0, 0], rel=1e-6)
    assert prefix_weights(4, known=4, delay=4).tolist() == [1] * 4
    assert sorted(weights, reverse=True) == weights


def test_the_guidance_weight_is_limited_at_both_ends():
    assert guidance_weight(0.0, 5.0) == guidance_weight(1.0, 5.0) == 5.0
    assert guidance_weight(0.5, 5.0) == pytest.approx(2.0)  # (1 − τ) / (τ r²) with r² = 1/2


def test_a_constant_flow_is_pulled_by_the_weighted_error():
    """With V = c the estimate is A + (1 − τ) c, whose derivative is the identity."""
    x, target = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    guidance = ChunkGuidance(target, prefix_weights(4, known=3, delay=1))
    velocity = guided(lambda x, step: 0 * x + 0.7, guidance, [0.5])(x, 0)
    error = guidance.weights.view(1, -1, 1) * (target - (x + 0.5 * 0.7))
    torch.testing.assert_close(velocity, 0.7 + 2.0 * error)
    assert not velocity.requires_grad


def test_the_derivative_goes_through_the_flow():
    """With V = a·A the estimate's derivative is 1 + (1 − τ) a."""
    x, target = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    guidance = ChunkGuidance(target, torch.ones(4))
    velocity = guided(lambda x, step: 3 * x, guidance, [0.5])(x, 0)
    torch.testing.assert_close(velocity, 3 * x + 2.0 * 2.5 * (target - 2.5 * x), rtol=1e-5, atol=1e-5)


def act(model, **options):
    noise = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(3))
    return model.generate_action(picture(), "go", think=False, noise=noise, num_inference_steps=10, **options)


def test_a_new_chunk_goes_on_where_the_last_one_leads():
    model = untrained_nano()
    free = act(model).actions
    last = torch.zeros(1, 10, 7) + torch.tensor([0.03, -0.03, 0.02, 0.1, -0.1, 0.05, 1.0])
    guided_actions = act(model, previous_actions=last, delay=4).actions
    off = [(chunk[:, :4, :6] - last[:, :4, :6]).abs().mean() for chunk in (free, guided_actions)]
    assert off[1] < 0.1 * off[0]
    torch.testing.assert_close(act(model, previous_actions=last[0], delay=4).actions, guided_actions)


def test_guidance_works_on_a_reused_latent_action():
    model = untrained_nano()
    context = act(model).context
    last = torch.zeros(1, 10, 7)
    options = {"previous_actions": last, "delay": 2}
    torch.testing.assert_close(
        act(model, context=context, reuse_latent=True, **options).actions, act(model, **options).actions
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 2}, "delay is 2, which needs previous_actions"),
        ({"previous_actions": torch.zeros(1, 4, 7), "delay": 5}, "delay is 5, but previous_actions hold 4"),
        ({"previous_actions": torch.zeros(1, 17, 7)}, r"shape \(1, 17, 7\), but it must be \(1, 1 to 16, 7\)"),
        ({"previous_actions": torch.zeros(2, 4, 7)}, r"shape \(2, 4, 7\)"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        act(untrained_nano(), **options)
