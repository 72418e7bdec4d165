"""Statistics over training seeds: cases computed by hand, slow versions written a second time, and what intervals cover.

Coverage: E experiments put the share of intervals that cover the truth within 3 sqrt(.95 * .05 / E) of its value, and a
bootstrap of a few seeds is itself only approximate: the bounds stand beside each test.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gumdrop.experiments import statistics as judging
from gumdrop.experiments.statistics import difference, efficiency, improvement, interval, iqm, mean, profile


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


# ---- by hand ----


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([7.0], 7.0),
        ([1.0, 5.0], 3.0),
        ([9.0, 0.0, 3.0], 4.0),  # floor(3 / 4) = 0 are cut
        ([100.0, 2.0, 4.0, -50.0], 3.0),
        ([1.0, 2.0, 3.0, 4.0, 90.0], 3.0),
        ([8.0, 7, 6, 5, 4, 3, 2, 1], 4.5),
        ([[0.0, 10.0], [2.0, 1000.0]], 6.0),  # seeds and tasks are pooled: 0, 2, 10, 1000
    ],
)
def test_interquartile_mean_by_hand(scores: Any, wanted: float) -> None:
    assert iqm(np.array(scores)) == pytest.approx(wanted)


def test_probability_of_improvement_by_hand() -> None:
    # pairs: 3>1, 3=3, 2>1, 2<3, so (1 + 1/2 + 1 + 0) / 4
    assert improvement([3.0, 2.0], [1.0, 3.0], rng()).value == 0.625
    # a second task in which a always wins: the mean over tasks
    assert improvement([[3.0, 1], [2.0, 1]], [[1.0, 0], [3.0, 0]], rng()).value == (0.625 + 1) / 2


def test_newcombes_interval_by_hand() -> None:
    """At theta = 1 the lower end solves (1 - t) / t = z^2 / (m n) [1 + N* ((1 - t)/(2 - t) + t/(1 + t))]."""
    estimate = improvement(np.arange(10) + 100.0, np.arange(10), rng())
    assert estimate.value == 1 and estimate.ci95 is not None
    t, high = estimate.ci95
    assert high == 1
    assert (1 - t) / t == pytest.approx(1.959964**2 / 100 * (1 + 9 * ((1 - t) / (2 - t) + t / (1 + t))), rel=1e-5)
    assert 0.8 < t < 0.86
    few = improvement([10.0, 11, 12], [0.0, 1, 2], rng()).ci95
    assert few is not None and few[0] < t  # three seeds that win say less than ten
    other = improvement(np.arange(10), np.arange(10) + 100.0, rng()).ci95
    assert other == pytest.approx((0, 1 - t))


def test_profile_by_hand() -> None:
    band = profile([1.0, 2.0, 2.0, 5.0], [0.0, 1.0, 2.0, 4.9, 5.0], rng())
    assert band.value.tolist() == [1.0, 0.75, 0.25, 0.25, 0.0]
    assert band.low is not None and band.high is not None
    assert (band.low <= band.value).all() and (band.value <= band.high).all()
    assert band.low[0] == band.high[0] == 1 and band.high[-1] == 0


def test_efficiency_by_hand() -> None:
    curves = [([0.0, 100.0], [0.0, 10.0]), ([20.0, 60.0, 120.0], [2.0, 6.0, 6.0])]
    band = efficiency(curves, rng(), points=5)
    assert band.x.tolist() == [20, 40, 60, 80, 100]
    assert band.value.tolist() == [2, 4, 6, 7, 8]  # means of two: 2 2, 4 4, 6 6, 8 6, 10 6
    assert band.low is not None and band.high is not None
    assert band.low.tolist() == [2, 4, 6, 6, 6] and band.high.tolist() == [2, 4, 6, 8, 10]
    alone = efficiency(curves[:1], rng(), points=3)
    assert alone.value.tolist() == [0, 5, 10] and alone.low is None
    assert efficiency([([5.0], [1.0]), ([5.0], [3.0])], rng()).value.tolist() == [2]


def test_one_seed_has_no_interval() -> None:
    assert interval([3.0], rng()) == (3.0, None)
    assert interval([[3.0, 5.0]], rng()) == (4.0, None)  # one seed on two tasks
    assert difference([3.0], [1.0, 2.0], rng()) == (1.5, None)
    assert improvement([3.0], [1.0, 3.0], rng()) == (0.75, None)
    assert profile([3.0], [1.0], rng()).high is None


# ---- slow versions ----


@pytest.mark.parametrize("shape", [(n,) for n in range(1, 14)] + [(3, 4), (10, 7), (5, 1)])
def test_interquartile_mean_is_scipys(shape: tuple[int, ...]) -> None:
    scores = rng(len(shape) + shape[0]).normal(size=shape)
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))
    many = rng(1).normal(size=(6, *shape)) if len(shape) == 2 else scores[None, :, None]
    assert iqm(many) == pytest.approx([stats.trim_mean(table, 0.25, axis=None) for table in many])


@pytest.mark.parametrize(("statistic", "name"), [(iqm, "iqm"), (mean, "mean")])
def test_bootstrap_against_one_loop_per_resample(statistic: judging.Statistic, name: str) -> None:
    scores = rng(3).normal(size=(5, 3)) + [0, 5, 50]  # tasks that no seed may leave
    found = interval(scores, rng(0), statistic, resamples=4000, expand=False).ci95
    draw = rng(9)
    slow = []
    for _ in range(4000):
        table = [[scores[draw.integers(5), task] for task in range(3)] for _ in range(5)]
        flat = sorted(itertools.chain(*table))
        flat = flat[3:-3] if name == "iqm" else flat  # floor(15 / 4)
        slow.append(math.fsum(flat) / len(flat))
    assert found == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.1 * np.std(slow))
    wide = interval(scores, rng(0), statistic, resamples=4000).ci95
    assert found is not None and wide is not None and wide[0] < found[0] < found[1] < wide[1]


def test_tasks_are_strata() -> None:
    """The second task mirrors the first: drawn together their mean would always be 0."""
    scores = rng(8).normal(size=(10, 1)) * [1, -1]
    found = interval(scores, rng(), mean, expand=False).ci95
    width = 2 * 1.96 * np.std(scores[:, 0]) * math.sqrt(2 / 10) / 2
    assert found is not None and found[1] - found[0] == pytest.approx(width, rel=0.1)


def test_bootstrap_of_all_resamples_of_three() -> None:
    """All 27 resamples of three seeds: the quantiles of the exact bootstrap distribution."""
    scores = [0.0, 1.0, 5.0]
    exact = [sum(drawn) / 3 for drawn in itertools.product(scores, repeat=3)]
    found = interval(scores, rng(), mean, resamples=20_000, expand=False).ci95
    assert found == pytest.approx(np.quantile(exact, [0.025, 0.975], method="inverted_cdf"))


def test_expanded_percentiles() -> None:
    """n = 10: t(9) = 2.2622, times sqrt(10/9) = 2.3845, normal tail .00855; two tasks: t(18) = 2.1009."""
    assert judging._tail((10, 1), (10, 1)) == pytest.approx(0.00855, abs=2e-5)
    assert judging._tail((10, 2), (10, 2)) == pytest.approx(stats.norm.cdf(-math.sqrt(10 / 9) * 2.1009), abs=2e-5)
    assert judging._tail((10, 1), (4, 1)) == judging._tail((4, 1), (4, 1))


def test_improvement_against_two_loops() -> None:
    a, b = rng(1).integers(0, 4, (6, 3)).astype(float), rng(2).integers(0, 4, (5, 3)).astype(float)
    pairs = [(a[i, t], b[j, t]) for t in range(3) for i in range(6) for j in range(5)]
    found = improvement(a, b, rng())
    assert found.value == pytest.approx(sum(1.0 if x > y else 0.5 if x == y else 0.0 for x, y in pairs) / len(pairs))
    test = stats.mannwhitneyu(a[:, 0], b[:, 0])
    assert improvement(a[:, 0], b[:, 0], rng()).value == pytest.approx(test.statistic / 30)
    assert improvement(b, a, rng()).value == pytest.approx(1 - found.value)
    assert found.ci95 is not None and 0 <= found.ci95[0] < found.value < found.ci95[1] <= 1


def test_a_bootstrap_in_pieces_is_one_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = rng(5).normal(size=(8, 2))
    whole = [interval(scores, rng(1)).ci95, improvement(scores, scores[:5] + 1, rng(1)).ci95]
    monkeypatch.setattr(judging, "CHUNK", 64)
    pieces = [interval(scores, rng(1)).ci95, improvement(scores, scores[:5] + 1, rng(1)).ci95]
    for one, other in zip(whole, pieces, strict=True):
        assert one == pytest.approx(other, abs=0.1)


def test_the_generator_decides() -> None:
    scores = rng(4).normal(size=12)
    assert interval(scores, rng(1)) == interval(scores, rng(1)) != interval(scores, rng(2))


def test_a_band_keeps_a_seed_together() -> None:
    """Seeds that differ by a constant: each resample shifts the whole curve, so the band has one width everywhere."""
    steps = np.arange(0.0, 50)
    band = efficiency([(steps, np.sin(steps) + k) for k in range(6)], rng(), points=50)
    assert band.low is not None and band.high is not None
    assert band.high - band.low == pytest.approx((band.high - band.low)[0])


# ---- coverage ----

EXPERIMENTS = 400  # 3 standard errors of the share: .033


def covered(ends: list[tuple[float, float] | None], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in filter(None, ends)]))


@pytest.mark.parametrize(
    ("n", "tasks", "low", "high"),
    [(5, 1, 0.88, 0.97), (10, 1, 0.91, 0.995), (20, 1, 0.92, 0.985), (5, 6, 0.91, 0.985)],
)
def test_95_percent_cover_the_truth(n: int, tasks: int, low: float, high: float) -> None:
    draw = rng(n)
    tables = draw.normal(size=(EXPERIMENTS, n, tasks)) + np.arange(tasks)
    for statistic in (iqm, mean):
        found = [interval(table, draw, statistic, 500).ci95 for table in tables]
        assert low <= covered(found, (tasks - 1) / 2) <= high


def test_differences_cover_and_find() -> None:
    draw = rng(7)
    a, b = draw.normal(1.0, 1.0, (EXPERIMENTS, 10)), draw.normal(3.0, 2.0, (EXPERIMENTS, 8))
    found = [difference(x, y, draw, mean, 500).ci95 for x, y in zip(a, b, strict=True)]
    assert 0.91 <= covered(found, -2.0) <= 0.99
    assert covered(found, -4.5) < 0.5 and covered(found, 0.5) < 0.5  # wide enough is easy: it must exclude, too


@pytest.mark.parametrize(("n", "shift"), [(5, 0.0), (10, 0.0), (10, 1.5), (10, 3.0)])
def test_probabilities_of_improvement_cover(n: int, shift: float) -> None:
    draw = rng(11)
    truth = float(stats.norm.cdf(shift / math.sqrt(2)))
    ends = [improvement(draw.normal(shift, 1, n), draw.normal(0, 1, n), draw).ci95 for _ in range(EXPERIMENTS)]
    assert 0.91 <= covered(ends, truth) <= 0.99


def test_probabilities_over_tasks_and_bands_cover() -> None:
    draw = rng(13)
    truth = float((stats.norm.cdf(0.5 / math.sqrt(2)) + stats.norm.cdf(1.0 / math.sqrt(2))) / 2)
    tables = [(draw.normal(size=(8, 2)) + [0.5, 1.0], draw.normal(size=(8, 2))) for _ in range(EXPERIMENTS)]
    assert 0.9 <= covered([improvement(a, b, draw, 400).ci95 for a, b in tables], truth) <= 0.99
    at_zero, at_middle = [], []
    for table in draw.normal(size=(EXPERIMENTS, 12)):
        band = profile(table, [0.0], draw, 400)
        assert band.low is not None and band.high is not None
        at_zero.append((float(band.low[0]), float(band.high[0])))
        curves = efficiency([([0, 1], [y, 2 * y]) for y in table], draw, 3, resamples=400)
        assert curves.low is not None and curves.high is not None
        at_middle.append((float(curves.low[1]), float(curves.high[1])))
    assert 0.9 <= covered(at_zero, 0.5) <= 1 and 0.9 <= covered(at_middle, 0.0) <= 0.995


# ---- refused ----


@pytest.mark.parametrize("scores", [[], [[]], 3.0, [[[1.0]]], [1.0, math.nan], [1.0, math.inf], np.zeros((0, 3))])
def test_scores_that_are_none(scores: Any) -> None:
    for call in (lambda: interval(scores, rng()), lambda: improvement([1.0], scores, rng())):
        with pytest.raises(ValueError, match="scores"):
            call()


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="1 tasks against 2"):
        difference([1.0, 2.0], [[1.0, 2.0]], rng())
    for curves, words in (
        ([], "none"), ([([], [])], "at least one"), ([([1, 2], [1])], "as many"), ([([1, 2], [1, math.nan])], "finite"),
        ([([2, 1], [1, 1])], "rise"), ([([1, 2], [1, 1]), ([3, 4], [1, 1])], "share no"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            efficiency(curves, rng())  # type: ignore[arg-type]


def test_students_interval_over_seeds() -> None:
    """By hand: mean 2, s = 1, t(0.975, 2) = 4.302653; 4.302653 / sqrt(3) = 2.484138."""
    over = judging.over_seeds([1.0, 2.0, 3.0])
    assert over["mean"] == 2.0 and over["ci95"] == pytest.approx([-0.484138, 4.484138], abs=1e-6)
    assert judging.over_seeds([7.0]) == {"mean": 7.0, "ci95": None}


def test_welchs_interval_is_scipys() -> None:
    a, b = [0.2, 0.9, 0.4, 0.7], [1.5, 0.1, 0.3, 2.0, -1.0, 0.6]
    found, ends = judging.welch(a, b), stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found["difference"] == pytest.approx(np.mean(a) - np.mean(b))
    assert found["ci95"] == pytest.approx([ends.low, ends.high])
    assert judging.welch([1.0, 1.0], [0.0, 0.0]) == {"difference": 1.0, "ci95": [1.0, 1.0]}
