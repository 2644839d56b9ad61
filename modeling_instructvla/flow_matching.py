"""Flow matching on action chunks: noise at flow time τ = 0, data at τ = 1 (paper appendix E.2, Eq. 1 and 2)."""

import inspect
import math
from collections.abc import Callable

import diffusers
import numpy as np
import torch
from diffusers import SchedulerMixin

from .configuration_sections import FlowConfig


def sample_flow_time(batch: int, flow: FlowConfig, device: torch.device) -> torch.Tensor:
    """τ = s · (1 − z), z ~ Beta(a, b): (batch,) float32 in [0, s] (paper Table 13)."""
    beta = torch.distributions.Beta(
        torch.tensor(flow.beta_a, dtype=torch.float32, device=device),
        torch.tensor(flow.beta_b, dtype=torch.float32, device=device),
    )
    return flow.tau_max * (1 - beta.sample((batch,)))


def interpolate(actions: torch.Tensor, noise: torch.Tensor, flow_time: torch.Tensor, sigma_min: float) -> torch.Tensor:
    """x_τ = (1 − (1 − σ_min) τ) · ε + τ · A, all (batch, horizon, action_dim), τ (batch,).

    The released form; appendix E.2 writes it with σ_min = 0.
    """
    tau = flow_time.view(-1, 1, 1)
    return (1 - (1 - sigma_min) * tau) * noise + tau * actions


def target_velocity(actions: torch.Tensor, noise: torch.Tensor, sigma_min: float) -> torch.Tensor:
    """u = A − (1 − σ_min) · ε, the derivative of x_τ (Eq. 1, with the sign of the paper's own Euler step)."""
    return actions - (1 - sigma_min) * noise


def flow_matching_loss(velocity: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of (V − u)² over the actions that count (Eq. 1).

    Args:
        velocity, target: (batch, horizon, action_dim).
        mask: (batch, horizon), True for real actions, False for the padding after the end of an episode.
    """
    error = (velocity.float() - target.float()).square()
    if mask is None:
        return error.mean()
    counted = mask.unsqueeze(-1).expand_as(error)
    return (error * counted).sum() / counted.sum().clamp(min=1)


def time_embedding(flow_time: torch.Tensor, size: int, max_period: float) -> torch.Tensor:
    """[sin τf, cos τf], f_j = exp(−j · ln(max_period) / (size/2 − 1)): (batch,) → (batch, size) float32."""
    half = size // 2  # max_period: Table 13
    steps = torch.arange(half, dtype=torch.float32, device=flow_time.device)
    angles = flow_time.float().unsqueeze(-1) * torch.exp(-steps * math.log(max_period) / (half - 1))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def make_scheduler(flow: FlowConfig) -> SchedulerMixin:
    """A fresh diffusers scheduler; schedulers hold the state of one integration, so each call makes its own."""
    return getattr(diffusers, flow.scheduler)(**flow.scheduler_kwargs)


def integrate(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    flow: FlowConfig,
    num_steps: int,
) -> torch.Tensor:
    """Carry noise at τ = 0 to an action chunk at τ = 1; with the default scheduler A ← A + V(A, τ) / N (Eq. 2).

    Args:
        velocity: V(x, τ) with x (batch, horizon, action_dim) float32 and τ a scalar tensor.
        noise: (batch, horizon, action_dim); the state stays float32 whatever the dtype of the model.
        num_steps: N.

    Returns:
        (batch, horizon, action_dim), float32.
    """
    scheduler = make_scheduler(flow)
    if "sigmas" in inspect.signature(scheduler.set_timesteps).parameters:  # `set_timesteps(N)` alone is not uniform
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / num_steps, num_steps), device=noise.device)
    else:
        scheduler.set_timesteps(num_steps, device=noise.device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    data_last = scheduler.config.get("invert_sigmas", False)  # diffusers' own direction is σ = 1 − τ, velocity −V
    x = noise.float()
    for t in scheduler.timesteps:
        sigma = t / scheduler.config.num_train_timesteps
        v = velocity(x, sigma).float() if data_last else -velocity(x, 1 - sigma).float()
        x = scheduler.step(v, t, x, return_dict=False)[0]
    return x
