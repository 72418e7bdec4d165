"""Gittins indices, restless arms and oracles against slow independent solvers, and the bandit rows of the literature."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.registry import make_world
from gumdrop.envs.solvers import bayes


def index_by_bisection(s: int, f: int, left: int) -> float:
    """The charge per pull at which one pull and then optimal stopping earn nothing: the definition, by recursion."""

    def gain(charge: float) -> float:
        @functools.cache
        def value(won: int, lost: int, rest: int) -> float:
            return 0.0 if rest == 0 else max(0.0, pull(won, lost, rest))

        def pull(won: int, lost: int, rest: int) -> float:
            p = (won + 1) / (won + lost + 2)
            return p - charge + p * value(won + 1, lost, rest - 1) + (1 - p) * value(won, lost + 1, rest - 1)

        return pull(s, f, left)

    low, high = 0.0, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
    return (low + high) / 2


def test_gittins_by_hand() -> None:
    """Two pulls left: after a success the arm (1, 0) pays 2/3, so (1/2 + 1/2 * 2/3) / (1 + 1/2) = 5/9."""
    index = bayes.gittins_table(3).index
    np.testing.assert_allclose(index[1, :2, :2], [[1 / 2, 1 / 3], [2 / 3, 1 / 2]], equal_nan=True)
    assert index[2, 0, 0] == pytest.approx(5 / 9, abs=1e-15)
    assert np.isnan(index[2, 1, 1])


def test_gittins_against_bisection() -> None:
    index = bayes.gittins_table(12).index
    for s, f, left in [(0, 0, 12), (0, 0, 5), (3, 1, 8), (1, 3, 8), (0, 5, 7), (5, 0, 7), (2, 2, 2), (4, 7, 1)]:
        assert index[left, s, f] == pytest.approx(index_by_bisection(s, f, left), abs=1e-11)
    for s, f in itertools.product(range(5), range(5)):  # a longer future makes an unknown arm more attractive
        assert (np.diff(index[1 : 13 - s - f, s, f]) > 0).all()


def gittins_value(arms: int, horizon: int) -> float:
    """Expected reward of the index policy, exactly, over ordered counts."""
    table = bayes.gittins_table(horizon)

    @functools.cache
    def value(counts: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        k = int(table.act(np.array([counts]))[0])
        s, f = counts[k]
        p = (s + 1) / (s + f + 2)
        win, lose = list(counts), list(counts)
        win[k], lose[k] = (s + 1, f), (s, f + 1)
        return p + p * value(tuple(win), left - 1) + (1 - p) * value(tuple(lose), left - 1)

    return value(((0, 0),) * arms, horizon)


@pytest.mark.parametrize(("arms", "horizon"), [(2, 8), (3, 8), (5, 10)])
def test_gittins_is_almost_optimal(arms: int, horizon: int) -> None:
    best, got = bayes.bayes_bandit(arms, horizon).value, gittins_value(arms, horizon)
    assert best - 0.01 < got <= best + 1e-12
    if (arms, horizon) == (5, 10):
        assert round(got, 2) == 6.66  # the optimum is 6.660


def test_gittins_refuses() -> None:
    table = bayes.gittins_table(3)
    with pytest.raises(ValueError, match=r"it must be \(N, arms, 2\)"):
        table.act(np.zeros((4, 2), np.int64))
    with pytest.raises(ValueError, match="less than the horizon of 3 pulls"):
        table.act(np.array([[[2, 0], [0, 1]]]))
    with pytest.raises(ValueError, match="1 to 200 pulls, not 201"):
        bayes.gittins_table(201)


def near(values: np.ndarray, wanted: float, error: float) -> None:
    """Equal within three standard errors of the difference; `error` is two standard errors of `wanted`."""
    mine = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - wanted) < 3 * math.hypot(error / 2, mine), f"{values.mean():.3f} +- {mine:.3f}"


@pytest.mark.parametrize(("arms", "wanted", "error"), [(5, 78.48, 0.16), (10, 83.67, 0.11)])
def test_gittins_rows(arms: int, wanted: float, error: float) -> None:
    """100 pulls of arms with means U[0, 1], 20,000 tasks, scored by the pulled arm's mean."""
    tasks, pulls = 20_000, 100
    table = bayes.gittins_table(pulls)
    env = Engine(make_world("bandit", {"arms": arms, "pulls": pulls, "observation": "counts"}), num_envs=tasks, seed=1)
    mean, obs, got = env.state.mean.copy(), env.obs, np.zeros(tasks)
    rows = np.arange(tasks)
    for t in range(pulls):
        count, total = np.rint(obs[:, 0, :arms]).astype(np.int64), np.rint(obs[:, 0, arms : 2 * arms]).astype(np.int64)
        assert (count.sum(1) == t).all()
        arm = table.act(np.stack((total, count - total), 2))
        got += mean[rows, arm]
        obs = env.step(arm[:, None], autoreset=False).obs
    near(got, wanted, error)


def sphere_samples(arms: int, features: int, square: bool, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(count, 1, features)), rng.normal(size=(count, arms, features))
    t = (x * w).sum(2) / np.linalg.norm(x, axis=2) / np.linalg.norm(w, axis=2)
    best: np.ndarray = (t**2 if square else (1 + t) / 2).max(1)
    return best


def test_sphere_oracle() -> None:
    """On the sphere in three dimensions a coordinate is uniform (Archimedes): the best of k uniform numbers, k / (k + 1)."""
    assert bayes.sphere_oracle(5, 3) == pytest.approx(5 / 6, abs=1e-10)
    assert bayes.sphere_oracle(1, 7) == pytest.approx(1 / 2, abs=1e-10)
    assert bayes.sphere_oracle(1, 7, square=True) == pytest.approx(1 / 7, abs=1e-10)
    assert bayes.sphere_oracle(2, 2) == pytest.approx(1 / 2 + 2 / math.pi**2, abs=1e-9)  # E max of two cosines is 4 / pi^2
    for arms, features, square in [(5, 4, False), (3, 2, True), (20, 6, True)]:
        seen = sphere_samples(arms, features, square, 100_000)
        low, high = stats.norm.interval(0.9999, seen.mean(), seen.std() / math.sqrt(len(seen)))
        assert low < bayes.sphere_oracle(arms, features, square) < high


def restless_by_histories(arms: int, horizon: int, rise: float, fall: float) -> float:
    """The definition: a distribution over all joint states, updated by Bayes' rule after every pull."""
    states = list(itertools.product((0, 1), repeat=arms))
    good = rise / (rise + fall)
    one = np.array([[1 - rise, rise], [fall, 1 - fall]])
    move = np.array([[math.prod(one[a, b] for a, b in zip(x, y, strict=True)) for y in states] for x in states])
    bits = np.array(states)

    def value(belief: np.ndarray, left: int) -> float:
        if left == 0:
            return 0.0
        best = 0.0
        for k in range(arms):
            total = 0.0
            for outcome in (0, 1):
                joint = belief * (bits[:, k] == outcome)
                if joint.sum() > 0:
                    total += joint.sum() * (outcome + value(joint / joint.sum() @ move, left - 1))
            best = max(best, total)
        return best

    start = np.where(bits == 1, good, 1 - good).prod(1)
    return value(start, horizon)


@pytest.mark.parametrize(
    ("arms", "horizon", "rise", "fall"), [(2, 5, 0.1, 0.1), (2, 5, 0.7, 0.6), (3, 4, 0.3, 0.2), (1, 4, 0.2, 0.5), (2, 1, 1, 1)]
)
def test_restless_against_histories(arms: int, horizon: int, rise: float, fall: float) -> None:
    wanted = restless_by_histories(arms, horizon, rise, fall)
    assert bayes.restless_bandit(arms, horizon, rise, fall) == pytest.approx(wanted, abs=1e-12)


def test_restless_refuses_what_is_too_large() -> None:
    assert bayes.restless_states(2, 3) == 1 + 9 + 25
    with pytest.raises(ValueError, match="^5 restless arms and 100 pulls have more than 20,000,000 beliefs"):
        bayes.restless_bandit(5, 100, 0.1, 0.1)


def test_count_states() -> None:
    assert bayes.count_states(2, 3) == 1 + 4 + 10  # pairs of pairs with 0, 1, 2 pulls in all
