"""Returns and advantages. Shapes: (T, ...) with time first; everything else rides along."""

from __future__ import annotations

import numpy as np

from .parameters import Array


def gae(
    reward: Array, value: Array, next_value: Array, terminated: Array, done: Array, gamma: float, gae_lambda: float
) -> Array:
    """Generalised advantage estimation (Schulman et al. 2016, "High-dimensional continuous control", eq. 11, 12, 16).

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t);  A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}

    `next_value` is the value of the state that the step led to: at a truncation that of the episode's last
    observation, not of the new episode's first. A terminated state is worth nothing; a truncated one keeps its worth but
    ends the sum. Returns advantages (T, ...), of the dtype of `value`; the value targets are `advantage + value`.
    """
    kind = value.dtype.type
    advantage: Array = reward + kind(gamma) * next_value * ~terminated - value
    carry_on = kind(gamma * gae_lambda) * ~done
    for t in range(len(advantage) - 2, -1, -1):
        advantage[t] += carry_on[t] * advantage[t + 1]
    return advantage


def explained_variance(prediction: Array, target: Array) -> float:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant."""
    variance = float(target.var(dtype=np.float64))
    return 1 - float((target - prediction).var(dtype=np.float64)) / variance if variance > 0 else 0.0


def n_step(reward: Array, terminated: Array, truncated: Array, gamma: float) -> tuple[Array, Array, Array]:
    """n-step returns (Sutton & Barto 2018, section 7.1) of n steps in a row, all arrays (..., n).

    R = sum_{k < m} gamma^k r_k, where m <= n is the number of steps until the episode ended, and `discount` gamma^m for what
    follows the last of them, 0 where that step terminated. Returns R and `discount`, float32 (...), and m - 1, int64 (...):
    whose next observation is to be looked at. A truncated episode ends the sum and keeps the worth of its last observation.
    """
    n = reward.shape[-1]
    return_, running = reward[..., 0].astype(np.float32), ~(terminated[..., 0] | truncated[..., 0])
    last, ended = np.zeros(return_.shape, np.int64), terminated[..., 0].copy()
    for k in range(1, n):
        return_ += running * np.float32(gamma**k) * reward[..., k]
        last += running
        ended |= running & terminated[..., k]
        running &= ~(terminated[..., k] | truncated[..., k])
    discount = np.where(ended, np.float32(0.0), np.float32(gamma) ** (last + 1).astype(np.float32))
    return return_, discount, last
