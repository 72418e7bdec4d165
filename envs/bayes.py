"""Bandits with unknown arms, solved exactly: dynamic programming over what has been seen of each arm."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from .core import Array
from .rng import GOLDEN, MIX_2, mix

COUNT_STATES = 1_500_000  # about 2 s and 0.6 GB


@dataclass(frozen=True)
class BayesBandit:
    """The Bayes-optimal agent for Bernoulli arms with means drawn from U[0, 1]."""

    arms: int
    horizon: int
    value: float  # expected total reward of `horizon` pulls
    keys: tuple[Array, ...]  # after t pulls: sorted keys of the states
    best: tuple[Array, ...]  # and in each the counts (successes * (horizon + 1) + failures) of the arm to pull

    def act(self, counts: Array) -> Array:
        """`counts`: whole numbers (N, arms, 2), successes and failures so far. Arms to pull, int64 (N,)."""
        counts = np.asarray(counts)
        if counts.ndim != 3 or counts.shape[1:] != (self.arms, 2):
            raise ValueError(f"counts has shape {counts.shape}: it must be (N, {self.arms}, 2)")
        pulls = counts.sum((1, 2))
        if len(pulls) and not (counts.min() >= 0 and pulls.max() < self.horizon):
            raise ValueError(f"counts must be at least 0 and sum to less than the horizon of {self.horizon} pulls")
        codes = counts[..., 0] * (self.horizon + 1) + counts[..., 1]
        keys = _keys(codes).sum(1, dtype=np.uint64)
        arm = np.empty(len(counts), np.int64)
        for t in np.unique(pulls):
            now = pulls == t
            wanted = self.best[t][np.searchsorted(self.keys[t], keys[now])]
            arm[now] = (codes[now] == wanted[:, None]).argmax(1)
        return arm


def _keys(codes: Array) -> Array:
    """A random-looking uint64 for each code, 0 for 0: sums over arms tell multisets apart, in any order."""
    with np.errstate(over="ignore"):  # the offset matters: mix(2 x) = 2 mix(x) for one x in about 64
        keys: Array = mix(codes.astype(np.uint64) * GOLDEN + MIX_2) * (codes != 0)
    return keys


def _level_sizes(arms: int, levels: int) -> Array:
    """How many multisets of `arms` pairs (successes, failures) have t = 0, 1, ... pulls in all, (levels,)."""
    touched = min(arms, max(levels - 1, 0))
    table = np.zeros((touched + 1, levels))  # [touched arms, pulls]
    table[0, 0] = 1
    for m in range(1, levels):  # arms with m pulls each: m + 1 kinds, j arms in C(m + j, j) ways
        wider = table.copy()
        for j in range(1, min(touched, (levels - 1) // m) + 1):
            wider[j:, j * m :] += math.comb(m + j, j) * table[: touched + 1 - j, : levels - j * m]
        table = wider
    sizes: Array = table.sum(0)
    return sizes


def bandit_horizon(arms: int, limit: int = COUNT_STATES) -> int:
    """The most pulls for which `bayes_bandit` stays within `limit` states."""
    levels = 16
    while (total := np.cumsum(_level_sizes(arms, levels)))[-1] <= limit:
        levels *= 2
    return int((total <= limit).sum())


def bandit_oracle(arms: int) -> float:
    """Expected reward of a pull for who knows the means: the largest of k uniform numbers, k / (k + 1)."""
    return arms / (arms + 1)


@functools.lru_cache(maxsize=4)
def bayes_bandit(arms: int, horizon: int) -> BayesBandit:
    """Exact dynamic programming over success and failure counts (Bellman 1956), priors U[0, 1].

    V(counts) = max_arm p (1 + V(counts + success)) + (1 - p) V(counts + failure), p = (s + 1) / (s + f + 2).
    Arms are exchangeable: a state is a multiset of (s, f). ValueError: there are more than `COUNT_STATES`.
    """
    if arms < 1 or horizon < 1:
        raise ValueError(f"a bandit needs at least 1 arm and 1 pull, got {arms} and {horizon}")
    longest = bandit_horizon(arms)
    if horizon > longest:
        raise ValueError(
            f"{arms} arms and {horizon} pulls have more than {COUNT_STATES:,} states: "
            f"the exact solver takes at most {longest} pulls of {arms} arms"
        )
    sizes = _level_sizes(arms, horizon)
    base = horizon + 1
    rows = np.zeros((1, 1), np.int64)  # states x arms worth distinguishing: codes s * base + f
    keys, levels, children = [np.zeros(1, np.uint64)], [rows], []
    for t in range(horizon - 1):
        change = np.stack((_keys(rows + base) - _keys(rows), _keys(rows + 1) - _keys(rows)), 2)
        after = keys[t][:, None, None] + change  # (M, w, 2)
        key, first, child = np.unique(after.ravel(), return_index=True, return_inverse=True)
        if len(key) != sizes[t + 1]:  # a collision of 64-bit keys would lose a state
            raise RuntimeError(f"bandit keys collide after {t + 1} pulls of {arms} arms")
        parent, arm, failed = np.unravel_index(first, after.shape)
        rows = rows[parent]
        rows[np.arange(len(rows)), arm] += np.where(failed, 1, base)
        if rows.shape[1] < arms:
            rows = np.concatenate((rows, np.zeros((len(rows), 1), np.int64)), 1)  # one more arm still untouched
        rows = rows.astype(np.int32)
        keys.append(key)
        levels.append(rows)
        children.append(child.reshape(after.shape).astype(np.int32))
    best: list[Array] = []
    value = np.zeros(0)
    for t in range(horizon - 1, -1, -1):
        s, f = np.divmod(levels[t], base)
        p = (s + 1) / (s + f + 2)
        q = p
        if t < horizon - 1:
            q = p * (1 + value[children[t][..., 0]]) + (1 - p) * value[children[t][..., 1]]
        value = q.max(1)
        best.append(np.take_along_axis(levels[t], q.argmax(1)[:, None], 1)[:, 0])
    return BayesBandit(arms, horizon, float(value[0]), tuple(keys), tuple(best[::-1]))
