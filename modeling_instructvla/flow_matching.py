"""Flow matching on action chunks: noise at flow time τ = 0, data at τ = 1 (paper appendix E.2, Eq. 1 and 2)."""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

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
    """A fresh diffusers scheduler; schedulers hold the state of one integration, so each makes its own."""
    return getattr(diffusers, flow.scheduler)(**flow.scheduler_kwargs)


@dataclass(frozen=True)
class FlowSteps:
    """The steps of an integration, the same for every chunk: made once, on the device, before anything runs there.

    Args:
        scheduler: that knows its steps and has taken none.
        times: τ of each evaluation of the velocity, (evaluations,) float32.
        data_last: whether the scheduler's σ is τ; diffusers' own direction is σ = 1 − τ, velocity −V.
        embedded: temb(τ) of each, (evaluations, hidden_size), as the action expert embeds them.
    """

    scheduler: SchedulerMixin
    times: torch.Tensor
    data_last: bool
    embedded: torch.Tensor | None = None


def flow_steps(flow: FlowConfig, num_steps: int, device: torch.device) -> FlowSteps:
    """N steps of the configured scheduler, of equal length where it can be told so."""
    scheduler = make_scheduler(flow)
    if "sigmas" in inspect.signature(scheduler.set_timesteps).parameters:  # `set_timesteps(N)` alone is not uniform
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / num_steps, num_steps), device=device)
    else:
        scheduler.set_timesteps(num_steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    data_last = bool(scheduler.config.get("invert_sigmas", False))
    sigmas = scheduler.timesteps / scheduler.config.num_train_timesteps
    return FlowSteps(scheduler, sigmas if data_last else 1 - sigmas, data_last)


def integrate(
    velocity: Callable[[torch.Tensor, int], torch.Tensor], noise: torch.Tensor, steps: FlowSteps
) -> torch.Tensor:
    """Carry noise at τ = 0 to an action chunk at τ = 1; with the default scheduler A ← A + V(A, τ) / N (Eq. 2).

    Args:
        velocity: V(x, τ_i) of x (batch, horizon, action_dim) float32 and the number i of the evaluation.
        noise: (batch, horizon, action_dim); the state stays float32 whatever the dtype of the model.

    Returns:
        (batch, horizon, action_dim), float32.
    """
    scheduler, x = copy.deepcopy(steps.scheduler), noise.float()
    for i, t in enumerate(scheduler.timesteps):
        v = velocity(x, i).float()
        x = scheduler.step(v if steps.data_last else -v, t, x, return_dict=False)[0]
    return x
