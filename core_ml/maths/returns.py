"""Returns and advantages. All arrays are (T, ...): time is the first axis, the others do not matter."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...store.arrays import Array


def next_step(x: Array, last: Array, truncated: Array, final: Array) -> Array:
    """What each step led to: x' of shape (T, N, ...), for any quantity x (T, N, ...), such as observations or their values.

    x'_t = x_{t+1};  x'_{T-1} = last;  where `truncated`, bool (T, N), x'_t is the next entry of `final` (K, ...).

    `last` (N, ...) belongs to the observations after the last step, `final` to the last observations of the K truncated
    episodes. Where an episode terminated, x' belongs to the next episode and must not be used.
    """
    after = np.empty_like(x)
    after[:-1], after[-1] = x[1:], last
    if len(final):
        after[truncated] = final
    return after


def gae(reward: Any, value: Any, next_value: Any, terminated: Any, done: Any, gamma: float, gae_lambda: float) -> Any:
    """Generalised advantage estimation (Schulman et al. 2016, "High-dimensional continuous control", eq. 11, 12, 16).

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t);  A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}

    `next_value` is the value of the state that the step led to: at a truncation that of the episode's last observation, not
    of the new episode's first one. A termination sets V(s') to 0; a truncation keeps it, but ends the sum. numpy arrays or
    torch tensors: floats (T, ...), flags bool that broadcast to them. Returns advantages (T, ...), of the dtype of `value`;
    the value targets are `advantage + value`.
    """
    advantage = reward + gamma * next_value * ~terminated - value
    continues = ~done
    for t in range(len(advantage) - 2, -1, -1):
        advantage[t] += gamma * gae_lambda * (continues[t] * advantage[t + 1])
    return advantage


def discounted_return(reward: Array, bootstrap: Array, done: Array, gamma: float) -> Array:
    """The discounted sum of rewards from each step to the end of its episode (Sutton & Barto 2018, "Reinforcement learning",
    eq. 3.9).

    G_t = r_t + gamma (done_t b_t + (1 - done_t) G_{t+1})

    `bootstrap` (T, ...) is the value of the state in which an episode ended: 0 where it terminated. An episode that has not
    ended in the last row gets the sum up to there. Returns (T, ...), of the dtype of `reward`.
    """
    kind = reward.dtype.type
    return_: Array = reward + kind(gamma) * bootstrap * done
    carry_on = kind(gamma) * ~done
    for t in range(len(return_) - 2, -1, -1):
        return_[t] += carry_on[t] * return_[t + 1]
    return return_


def time_in_episode(done: Array) -> Array:
    """Number of each step within its episode, from 0, int64 (T, ...); `done` bool (T, ...). An episode begins in row 0."""
    t = np.arange(len(done)).reshape(-1, *[1] * (done.ndim - 1))
    start = np.zeros(done.shape, np.int64)
    start[1:] = np.where(done[:-1], t[1:], 0)
    return np.asarray(t - np.maximum.accumulate(start))


class RunningMean:
    """A baseline that depends on time alone: b(t), the mean return at time step t, with exponentially decaying weights.

    b(t) = S(t) / C(t);  S(t) <- decay S(t) + sum of the new returns,  C(t) <- decay C(t) + their number

    Read it before `update`: a baseline that does not depend on the step's own action adds no bias (Williams 1992,
    "Simple statistical gradient-following algorithms", section 4). Time steps from `size` - 1 on share the last mean.
    """

    def __init__(self, size: int, decay: float) -> None:
        self.decay = decay
        self.sum, self.count = np.zeros(size), np.zeros(size)

    def at(self, time: Array) -> Array:
        """b(t), float32, 0 where there are no returns yet; `time` int64 of any shape."""
        mean = np.divide(self.sum, self.count, out=np.zeros(len(self.sum)), where=self.count > 0)
        return np.asarray(mean[np.minimum(time, len(mean) - 1)], np.float32)

    def update(self, time: Array, return_: Array) -> None:
        """`time` and `return_` of the same shape."""
        at, size = np.minimum(time, len(self.sum) - 1).reshape(-1), len(self.sum)
        self.sum[:] = self.decay * self.sum + np.bincount(at, return_.reshape(-1), size)
        self.count[:] = self.decay * self.count + np.bincount(at, minlength=size)

    def state(self) -> dict[str, Array]:
        return {"sum": self.sum, "count": self.count}

    def load(self, state: dict[str, Array]) -> None:
        for name, array in self.state().items():
            array[...] = state[name]


def explained_variance(prediction: Array, target: Array) -> float:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant."""
    variance = float(target.var(dtype=np.float64))
    return 1 - float((target - prediction).var(dtype=np.float64)) / variance if variance > 0 else 0.0


def n_step(reward: Array, terminated: Array, truncated: Array, gamma: float) -> tuple[Array, Array, Array]:
    """n-step returns (Sutton & Barto 2018, section 7.1) of n steps in a row, all arrays (..., n).

    R = sum_{k < m} gamma^k r_k;  m <= n steps until the episode ended;  discount = gamma^m, 0 where the last step terminated

    The target is R + discount V(s'), with s' the state after step m - 1. Returns R and `discount`, float32 (...), and m - 1,
    int64 (...). A truncated episode ends the sum, and its last observation is bootstrapped.
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
