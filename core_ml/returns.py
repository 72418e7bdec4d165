"""Returns and advantages. Shapes: (T, ...) with time first; everything else rides along."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, "High-dimensional continuous control", eq. 11, 12, 16).

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t);  A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}

    `next_value` is the value of the state that the step led to: at a truncation that of the episode's last
    observation, not of the new episode's first. A terminated state is worth nothing; a truncated one keeps its worth but
    ends the sum. Returns advantages (T, ...); the value targets are `advantage + value`.
    """
    delta = reward + gamma * next_value * ~terminated - value
    carry_on = gamma * gae_lambda * (~done).to(delta.dtype)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        running = delta[t] + carry_on[t] * running
        advantage[t] = running
    return advantage


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - prediction) / Var(target), a scalar: 1 is perfect, 0 no better than a constant."""
    variance = target.var(correction=0)
    return torch.where(variance > 0, 1 - (target - prediction).var(correction=0) / variance, torch.zeros_like(variance))
