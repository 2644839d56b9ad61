"""Real-time chunking (RTC): a chunk that goes on where the one under way leads, though it is computed meanwhile.

Black, Galliker and Levine 2025 (arXiv 2506.07339): the flow is guided towards the actions that the last chunk still has
to give; fully for those that will have been executed when the new chunk is ready, then less and less.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Velocity = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class ChunkGuidance:
    """What a new chunk is guided to.

    Args:
        target: Y, (batch, horizon, action_dim), normalised; what has no weight may be anything finite.
        weights: diag W, (horizon,), 0 to 1.
        limit: β, the largest guidance weight (section 4.2 there: 5).
    """

    target: torch.Tensor
    weights: torch.Tensor
    limit: float = 5.0


def prefix_weights(horizon: int, known: int, delay: int) -> torch.Tensor:
    """W_i = 1 for i < d, then c_i · (e^{c_i} − 1) / (e − 1) with c_i = (k − i) / (k − d + 1) for i < k, then 0 (Eq. 5).

    Args:
        horizon: H, actions of the new chunk.
        known: k = H − s, actions that the last chunk still has to give.
        delay: d, how many of them are executed before the new chunk is ready.

    Returns:
        (horizon,) float32.
    """
    place = torch.arange(horizon, dtype=torch.float32)
    share = (known - place) / (known - delay + 1)
    fading = share * torch.expm1(share) / (math.e - 1)
    return torch.where(place < delay, 1.0, torch.where(place < known, fading, 0.0))


def guided(velocity: Velocity, guidance: ChunkGuidance, times: Sequence[float]) -> Velocity:
    """V + min(β, (1 − τ) / (τ · r_τ²)) · (Y − Â)ᵀ diag(W) ∂Â/∂A with Â = A + (1 − τ) · V (Eq. 2 and 3) and
    r_τ² = (1 − τ)² / (τ² + (1 − τ)²) (Eq. 4).

    Args:
        velocity: V(A, τ_i) of A and the number i.
        times: τ_i.
    """
    weights = guidance.weights.to(guidance.target.device).view(1, -1, 1)

    def guided_velocity(x: torch.Tensor, step: int) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            v = velocity(x, step).float()
            estimate = x + (1 - times[step]) * v
        error = weights * (guidance.target - estimate.detach())
        (pull,) = torch.autograd.grad(estimate, x, error)
        return v.detach() + guidance_weight(times[step], guidance.limit) * pull

    return guided_velocity


def guidance_weight(flow_time: float, limit: float) -> float:
    """min(β, (1 − τ) / (τ · r_τ²)) = min(β, (τ² + (1 − τ)²) / (τ · (1 − τ)))."""
    rest = flow_time * (1 - flow_time)
    return limit if rest <= 0 else min(limit, (flow_time**2 + (1 - flow_time) ** 2) / rest)
