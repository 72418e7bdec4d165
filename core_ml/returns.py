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


def lambda_returns(reward: Array, next_value: Array, discount: Array, return_lambda: float, done: Array | None = None) -> Array:
    """Lambda-returns (Sutton & Barto 2018, eq. 12.2 in its recursive form; DreamerV3, eq. 5). All (T, ...).

    R_t = r_t + d_t ((1 - lambda) V(s'_t) + lambda R_{t+1});  R_T = r_T + d_T V(s'_T)

    `discount` d_t is gamma times the probability that the episode goes on: 0 at a termination. `next_value` is the value of
    the state that the step led to. Where `done`, bool, the sum ends as at T, so a truncated step keeps that value.
    """
    return_: Array = reward + discount * next_value
    carry_on = return_lambda * discount if done is None else return_lambda * discount * ~done
    for t in range(len(return_) - 2, -1, -1):
        return_[t] += carry_on[t] * (return_[t + 1] - next_value[t])
    return return_
