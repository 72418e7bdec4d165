"""Bandits with unknown arms: exact dynamic programming over what has been seen, Gittins indices, oracles.

numba and scipy are imported where they are used, late.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...store.arrays import Array
from ..rng import GOLDEN, MIX_2, mix

COUNT_STATES = 1_500_000  # about 2 s and 0.6 GB
RESTLESS_STATES = 20_000_000  # about 2 s: values of `restless_bandit`, over all pulls
GITTINS_PULLS = 200  # 7 s and 65 MB; time grows with the fifth power


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


@functools.cache
def bandit_horizon(arms: int, limit: int = COUNT_STATES) -> int:
    """The most pulls for which `bayes_bandit` stays within `limit` states."""
    levels = 16
    while (total := np.cumsum(_level_sizes(arms, levels)))[-1] <= limit:
        levels *= 2
    return int((total <= limit).sum())


def count_states(arms: int, pulls: int) -> int:
    """How many states `bayes_bandit` would have if arms were not exchangeable: successes and failures of each arm."""
    return math.comb(pulls - 1 + 2 * arms, 2 * arms)


def bandit_oracle(arms: int) -> float:
    """Expected reward of a pull for who knows the means: the largest of k uniform numbers, k / (k + 1)."""
    return arms / (arms + 1)


@functools.cache
def sphere_oracle(arms: int, features: int, square: bool = False) -> float:
    """Expected mean reward of the best of k arms in a context, where arm a pays (1 + t_a) / 2, or t_a^2 with `square`.

    t_a = w_a . x are the products of independent unit vectors, uniform on the sphere in d = `features` dimensions. Then
    (1 + t) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2) and t^2 ~ Beta(1 / 2, (d - 1) / 2), both with distribution function F:
    E max_a = integral over 0..1 of 1 - F(x)^k.
    """
    from scipy import integrate, special

    a, b = (0.5 if square else (features - 1) / 2), (features - 1) / 2
    value, _ = integrate.quad(lambda x: 1 - special.betainc(a, b, x) ** arms, 0, 1, epsabs=1e-12, epsrel=1e-12, limit=500)
    return float(value)


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


def restless_states(arms: int, horizon: int) -> int:
    """How many values `restless_bandit` computes; where they are too many, some number above RESTLESS_STATES."""
    total = 0
    for t in range(horizon):
        total += (1 + 2 * t) ** arms
        if total > RESTLESS_STATES:  # enough: the rest may be a million numbers of a thousand digits
            break
    return total


@functools.lru_cache(maxsize=16)
def restless_bandit(arms: int, horizon: int, rise: float, fall: float) -> float:
    """Optimal expected reward of `horizon` pulls of arms that are two-state Markov chains and pay 1 in the good state.

    Each pull shows that arm's state; then all arms move: bad to good with probability `rise`, good to bad with `fall`.
    They start in their stationary law, unseen. Exact dynamic programming over beliefs (Whittle 1988; Liu & Zhao 2010):
    what is known of an arm is its last seen state and the number of pulls since, or nothing. For z pulls since state
    s, P(good) = g + (s - g) (1 - rise - fall)^z with g = rise / (rise + fall).
    """
    if restless_states(arms, horizon) > RESTLESS_STATES:
        raise ValueError(
            f"{arms} restless arms and {horizon} pulls have more than {RESTLESS_STATES:,} beliefs: take fewer pulls or arms"
        )
    good = rise / (rise + fall)
    since = np.repeat(np.arange(1, horizon + 1), 2)
    seen = np.tile([0.0, 1.0], horizon)
    belief = np.append(good, good + (seen - good) * (1 - rise - fall) ** since)  # 0: never seen; 2 z - 1 + s
    value = np.zeros((1 + 2 * horizon,) * arms)
    for t in range(horizon - 1, -1, -1):
        size = 1 + 2 * t
        older = np.append(0, np.arange(1, size) + 2)
        best = np.zeros(())  # rewards are at least 0
        for arm in range(arms):
            p = belief[:size].reshape([size if a == arm else 1 for a in range(arms)])
            lost, won = (value[np.ix_(*[[now] if a == arm else older for a in range(arms)])] for now in (1, 2))
            q = p * (1 + won) + (1 - p) * lost
            best = np.maximum(best, q)
        value = best
    return float(value.item())


@dataclass(frozen=True)
class GittinsTable:
    """Finite-horizon Gittins indices of a Bernoulli arm with mean drawn from U[0, 1]."""

    horizon: int
    index: Array  # float64 (horizon + 1, horizon, horizon): [pulls left, successes, failures]; nan where they exceed horizon

    def act(self, counts: Array) -> Array:
        """`counts`: whole numbers (N, arms, 2), successes and failures so far. Arms with the largest index, int64 (N,).

        This index policy is the Bayes-optimal one for two arms of which one is known, and very close to it otherwise
        (Kaufmann 2018, "On Bayesian index policies for sequential resource allocation").
        """
        counts = np.asarray(counts)
        if counts.ndim != 3 or counts.shape[2] != 2:
            raise ValueError(f"counts has shape {counts.shape}: it must be (N, arms, 2)")
        pulls = counts.sum((1, 2))
        if len(pulls) and not (counts.min() >= 0 and pulls.max() < self.horizon):
            raise ValueError(f"counts must be at least 0 and sum to less than the horizon of {self.horizon} pulls")
        left = self.horizon - pulls
        best: Array = self.index[left[:, None], counts[..., 0], counts[..., 1]].argmax(1)
        return best


@functools.lru_cache(maxsize=2)
def gittins_table(horizon: int) -> GittinsTable:
    """Indices of all (successes s, failures f, pulls left n) with s + f + n <= horizon, exact up to rounding.

    The index is the largest rate at which stopping can earn: max over stopping times 1 <= tau <= n of
    E[reward until tau] / E[tau] (Bradt, Johnson & Karlin 1956; Gittins 1979). Calibration by Dinkelbach's iteration: for
    a charge c per pull, dynamic programming finds the tau that maximises E[reward - c tau]; its rate is the next c, and
    c grows to the index in a few rounds. ValueError: more than `GITTINS_PULLS`.
    """
    if not 1 <= horizon <= GITTINS_PULLS:
        raise ValueError(f"Gittins indices are computed for 1 to {GITTINS_PULLS} pulls, not {horizon}")
    import numba

    index = np.full((horizon + 1, horizon, horizon), np.nan)
    numba.njit(nogil=True)(_calibrate)(horizon, index)
    return GittinsTable(horizon, index)


def _calibrate(horizon: int, index: Any) -> None:
    reward, time = np.zeros(horizon + 1), np.zeros(horizon + 1)  # by successes from now on, at one depth
    for s in range(horizon):
        for f in range(horizon - s):
            charge = (s + 1) / (s + f + 2)
            for left in range(1, horizon - s - f + 1):  # the index grows with the pulls left: go on from there
                while True:
                    reward[: left + 1] = 0.0
                    time[: left + 1] = 0.0
                    for depth in range(left - 1, -1, -1):
                        for won in range(depth + 1):
                            p = (s + won + 1) / (s + f + depth + 2)
                            r = p + p * reward[won + 1] + (1 - p) * reward[won]
                            t = 1 + p * time[won + 1] + (1 - p) * time[won]
                            on = depth == 0 or r > charge * t  # the first pull is a must
                            reward[won] = r if on else 0.0
                            time[won] = t if on else 0.0
                    rate = reward[0] / time[0]
                    if rate <= charge + 1e-14:
                        break
                    charge = rate
                index[left, s, f] = charge
