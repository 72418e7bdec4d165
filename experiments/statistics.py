"""Judging algorithms over training seeds, after Agarwal et al. 2021, Deep RL at the edge of the statistical precipice
(arXiv:2108.13264).

A score is one figure of one trained agent, such as its mean return over held-out episodes. `scores` have the shape (seeds,) or
(seeds, tasks): the seeds of a task are independent of those of another, and a bootstrap draws them task by task (strata). Every
function is vectorised and draws from the generator that it is given: the same generator state, the same interval. Scores that
are not finite raise ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..store.arrays import Array

Statistic = Callable[[Array], Array]  # (..., seeds, tasks) -> (...)
RESAMPLES = 2_000
LEVEL = 0.95
FEW = 5  # below so many seeds an interval cannot cover what it says: resampled seeds lie no wider than the seeds themselves
CHUNK = 2**22  # resampled scores in memory at once


class Estimate(NamedTuple):
    """A figure with its 95 % interval, None where one training seed gives none."""

    value: float
    ci95: tuple[float, float] | None


class Band(NamedTuple):
    """A curve with its pointwise 95 % interval, each (points,); without an interval `low` and `high` are None."""

    x: Array
    value: Array
    low: Array | None
    high: Array | None


def iqm(scores: npt.ArrayLike) -> Array:
    """Interquartile mean over all seeds and tasks, (seeds,) or (..., seeds, tasks) -> (...).

        IQM = mean of x_(g+1), ..., x_(n-g),   g = floor(n / 4)

    x_(k) are all n scores in order. This is `scipy.stats.trim_mean(scores, 0.25, axis=None)`, what the paper's own code
    (rliable) takes: where 4 does not divide n, a little less than a quarter is cut on each side, never a part of a score.
    """
    pooled = _pooled(scores)
    n = pooled.shape[-1]
    cut = n // 4
    middle = np.partition(pooled, [cut, n - cut - 1], axis=-1)[..., cut : n - cut]
    return np.asarray(middle.mean(-1))


def mean(scores: npt.ArrayLike) -> Array:
    """Mean over all seeds and tasks, (seeds,) or (..., seeds, tasks) -> (...)."""
    return np.asarray(_pooled(scores).mean(-1))


def mean_interval(values: Array) -> list[float]:
    """95 % confidence interval of the mean (normal approximation, over independent episodes)."""
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return [float(values.mean()) - half, float(values.mean()) + half]


def interval(
    scores: Any, rng: np.random.Generator, statistic: Statistic = iqm, resamples: int = RESAMPLES, expand: bool = True
) -> Estimate:
    """`statistic` of `scores`, (seeds,) or (seeds, tasks), with its stratified bootstrap interval.

    The ends are percentiles of the statistic over `resamples` resampled tables. With `expand` they lie further out, as
    Student's t lies beyond the normal distribution (see `_tail`): the plain percentiles of the paper (`expand=False`) cover a
    mean over 10 seeds in 90 % of experiments, not in 95 %.
    """
    table = check(scores)
    value = float(statistic(table))
    if len(table) < 2:
        return Estimate(value, None)
    found = np.concatenate([statistic(drawn) for drawn in _resampled(table, rng, resamples)])
    return Estimate(value, _percentiles(found, _tail(table.shape, table.shape) if expand else (1 - LEVEL) / 2))


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean over n training seeds and its 95 % interval by Student's t, mean -+ t(0.975, n - 1) s / sqrt(n): {mean, ci95}; one
    seed has no interval, None."""
    from scipy.special import stdtrit

    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return {"mean": mean, "ci95": None}
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(_variance(values) / n)
    return {"mean": mean, "ci95": [mean - half, mean + half]}


def welch(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Difference of the means of two sets of seeds, two at least in each, and its 95 % interval: {difference, ci95}.

        d -+ t(0.975, nu) sqrt(u + v),   u = s_a^2 / n, v = s_b^2 / m,   nu = (u + v)^2 / (u^2 / (n - 1) + v^2 / (m - 1))

    Welch 1947, The generalization of Student's problem when several different population variances are involved. Of sets whose
    values are all equal the interval is the difference alone.
    """
    from scipy.special import stdtrit

    gap = math.fsum(a) / len(a) - math.fsum(b) / len(b)
    u, v = _variance(a) / len(a), _variance(b) / len(b)
    if u + v == 0:
        return {"difference": gap, "ci95": [gap, gap]}
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(u + v)
    return {"difference": gap, "ci95": [gap - half, gap + half]}


def difference(
    a: Any, b: Any, rng: np.random.Generator, statistic: Statistic = iqm, resamples: int = RESAMPLES, expand: bool = True
) -> Estimate:
    """statistic(a) - statistic(b) with its interval; both are resampled, independently. As many tasks, any numbers of seeds."""
    a, b = _two(a, b)
    value = float(statistic(a) - statistic(b))
    if min(len(a), len(b)) < 2:
        return Estimate(value, None)
    of_a, of_b = (np.concatenate([statistic(drawn) for drawn in _resampled(table, rng, resamples)]) for table in (a, b))
    return Estimate(value, _percentiles(of_a - of_b, _tail(a.shape, b.shape) if expand else (1 - LEVEL) / 2))


def improvement(a: Any, b: Any, rng: np.random.Generator, resamples: int = RESAMPLES) -> Estimate:
    """Probability that a run of `a` scores higher than one of `b` on a random task, ties one half, with its interval.

        P(X > Y) = 1/T sum_t 1/(N M) sum_ij S(x_it, y_jt),   S = 1 where x > y, 1/2 where x = y, else 0

    The Mann-Whitney statistic (Agarwal et al. 2021, section 4.3). For one task the interval is Newcombe's (see `_newcombe`),
    because a bootstrap of two sets that do not overlap gives [1, 1] for three seeds as for a hundred; for several tasks it is
    the stratified bootstrap's.
    """
    a, b = _two(a, b)
    value = float(_superiority(a, b))
    if min(len(a), len(b)) < 2:
        return Estimate(value, None)
    if a.shape[1] == 1:
        return Estimate(value, _newcombe(value, len(a), len(b)))
    drawn = zip(_resampled(a, rng, resamples, len(b)), _resampled(b, rng, resamples, len(a)), strict=True)
    found = np.concatenate([_superiority(x, y) for x, y in drawn])
    return Estimate(value, _percentiles(found, _tail(a.shape, b.shape)))


def profile(scores: Any, thresholds: Any, rng: np.random.Generator, resamples: int = RESAMPLES) -> Band:
    """Performance profile: share of runs whose score exceeds each threshold, with a pointwise band (section 4.3).

    F(tau) = 1/T sum_t 1/N sum_n 1[x_nt > tau]
    """
    table, at = check(scores), np.asarray(thresholds, np.float64)

    def above(drawn: Array) -> Array:  # (..., seeds, tasks) -> (..., points)
        return np.asarray((_pooled(drawn)[..., None] > at).mean(-2))

    value = above(table)
    if len(table) < 2:
        return Band(at, value, None, None)
    found = np.concatenate([above(drawn) for drawn in _resampled(table, rng, resamples, len(at))])
    tail = _tail(table.shape, table.shape)
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return Band(at, value, low, high)


def efficiency(
    curves: Sequence[tuple[Any, Any]],
    rng: np.random.Generator,
    points: int = 200,
    statistic: Statistic = iqm,
    resamples: int = RESAMPLES,
) -> Band:
    """Sample-efficiency curve: `statistic` over seeds of the score against environment steps, with a pointwise band.

    curves: per training seed its env_steps (rising) and scores, of any lengths. All are interpolated linearly onto one even
    grid, which begins where the last of them begins and ends where the first of them ends: nothing is extrapolated. The band
    resamples whole curves, so that a seed stays one seed along its curve.
    """
    pairs = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in curves]
    if not pairs:
        raise ValueError("curves: there are none")
    for x, y in pairs:
        if len(x) == 0 or x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("curves: each should be env_steps and scores, as many finite numbers, at least one")
        if (np.diff(x) < 0).any():
            raise ValueError("curves: env_steps should rise")
    first, last = max(x[0] for x, _ in pairs), min(x[-1] for x, _ in pairs)
    if last < first:
        raise ValueError("curves: they share no env_steps: one ends before another begins")
    grid = np.linspace(first, last, points if last > first else 1)
    table = np.stack([np.interp(grid, x, y) for x, y in pairs])  # (seeds, points)

    def along(drawn: Array) -> Array:  # (..., seeds, points) -> (..., points), each point a task of its own
        return statistic(np.swapaxes(drawn, -1, -2)[..., None])

    value = along(table)
    if len(table) < 2:
        return Band(grid, value, None, None)
    found = []
    for size in _chunks(resamples, table.size):
        found.append(along(table[rng.integers(len(table), size=(size, len(table)))]))
    tail = _tail((len(table), 1), (len(table), 1))
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail], axis=0)
    return Band(grid, value, low, high)


def check(scores: Any) -> Array:
    """`scores` as float64 (seeds, tasks). Raises ValueError for other shapes, none at all, and what is not finite."""
    table = np.asarray(scores, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"scores: shape {np.shape(scores)}, should be (seeds,) or (seeds, tasks), at least one of each")
    odd = int((~np.isfinite(table)).sum())
    if odd:
        raise ValueError(f"scores: {odd} of {table.size} are not finite: say what a failed seed counts, or leave it out")
    return table


# ---- inside ----


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1)


def _pooled(scores: Any) -> Array:
    """(seeds,) or (..., seeds, tasks) -> (..., seeds * tasks)."""
    array = np.asarray(scores, np.float64)
    return array if array.ndim == 1 else array.reshape(*array.shape[:-2], -1)


def _two(a: Any, b: Any) -> tuple[Array, Array]:
    a, b = check(a), check(b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"scores: {a.shape[1]} tasks against {b.shape[1]}: both should be scored on the same ones")
    return a, b


def _chunks(resamples: int, size: int) -> list[int]:
    """How many resamples at a time, so that `size` scores each fit into CHUNK."""
    most = max(1, min(resamples, CHUNK // size))
    return [min(most, resamples - done) for done in range(0, resamples, most)]


def _resampled(table: Array, rng: np.random.Generator, resamples: int, beside: int = 1) -> Iterator[Array]:
    """Tables whose seeds are drawn with replacement, task by task, in pieces (size, seeds, tasks).

    `beside`: how many numbers the caller makes of each score.
    """
    n, tasks = table.shape
    for size in _chunks(resamples, table.size * beside):  # the same for two sets of seeds that are taken beside each other
        yield np.take_along_axis(table[None], rng.integers(n, size=(size, n, tasks)), axis=1)


def _tail(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Share to cut at each end of a bootstrap distribution: the expanded percentile interval.

        alpha' = Phi(-sqrt(n / (n - 1)) t_{df, 1 - alpha/2})

    Hesterberg 2015, What teachers should know about the bootstrap (arXiv:1411.5279), section 5.3: a bootstrap of n values is
    narrower by sqrt((n - 1) / n), and normal where Student's t belongs. df sums n - 1 over the tasks; for two sets of seeds n
    is the smaller one's and so is df.
    """
    from scipy.special import ndtr, stdtrit

    (n, tasks) = min(a, b)
    return float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(tasks * (n - 1), (1 + LEVEL) / 2)))


def _percentiles(found: Array, tail: float) -> tuple[float, float]:
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _superiority(a: Array, b: Array) -> Array:
    """(..., N, T), (..., M, T) -> (...): share of pairs in which a is higher, ties one half, mean over tasks."""
    x, y = a[..., :, None, :], b[..., None, :, :]
    return np.asarray(((x > y) + 0.5 * (x == y)).mean((-3, -2, -1)))


def _newcombe(theta: float, m: int, n: int) -> tuple[float, float]:
    """Both theta' with (theta - theta')^2 = z^2 V(theta'): a score interval of a Mann-Whitney statistic.

        V(t) = t (1 - t) / (m n) * [1 + N* ((1 - t) / (2 - t) + t / (1 + t))],   N* = (m + n) / 2 - 1

    Newcombe 2006, Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics in
    Medicine 25, method 5. By bisection: beyond theta the difference grows faster than the root of V.
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + LEVEL) / 2))

    def outside(t: float) -> bool:
        variance = t * (1 - t) / (m * n) * (1 + ((m + n) / 2 - 1) * ((1 - t) / (2 - t) + t / (1 + t)))
        return (theta - t) ** 2 > z * z * variance

    ends = []
    for end in (0.0, 1.0):
        inner, outer = theta, end
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if outside(middle) else (middle, outer)
        ends.append(inner)
    return ends[0], ends[1]
