"""Symlog, two-hot codes and lambda-returns by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gumdrop.core_ml.maths.returns import gae, lambda_returns
from gumdrop.core_ml.maths.two_hot import TwoHot, symexp, symlog


def test_symlog_by_hand() -> None:
    x = torch.tensor([0.0, 1.0, -1.0, math.e - 1, -(math.e**3 - 1), 1e-6])
    expected = torch.tensor([0.0, math.log(2), -math.log(2), 1.0, -3.0, 1e-6])
    torch.testing.assert_close(symlog(x), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-5, atol=1e-9)


def test_two_hot_by_hand() -> None:
    code = TwoHot(bins=5, limit=2.0)
    one, two = math.e - 1, math.e**2 - 1
    torch.testing.assert_close(code.values, torch.tensor([-two, -one, 0.0, one, two]))
    x = torch.tensor([0.0, one / 4, -one, one + 0.3 * (two - one), 100.0, -100.0])
    expected = torch.tensor([
        [0, 0, 1, 0, 0],
        [0, 0, 0.75, 0.25, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0.7, 0.3],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0],
    ])  # fmt: skip
    torch.testing.assert_close(code.encode(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(code.mean(expected), x.clamp(-two, two), rtol=1e-6, atol=1e-6)
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0])
    log_p = logits - math.log(sum(map(math.exp, logits.tolist())))
    assert float(code.loss(logits, x[1])) == pytest.approx(-0.75 * float(log_p[2]) - 0.25 * float(log_p[3]))


def test_two_hot_of_any_size() -> None:
    code = TwoHot()
    x = torch.cat([torch.linspace(-3, 3, 61), torch.tensor([1e3, -1e5, 4e8])])
    p = code.encode(x)
    assert (p >= 0).all() and ((p > 0).sum(-1) <= 2).all()
    torch.testing.assert_close(code.mean(p), x, rtol=1e-5, atol=1e-6)
    assert float(code.decode(torch.zeros(255))) == 0.0  # 4.85e8 in both directions leave nothing
    assert float(code.decode(torch.full((7, 3, 255), 2.5)).abs().max()) == 0.0
    with pytest.raises(ValueError, match="odd"):
        TwoHot(bins=4)


def test_the_best_prediction_of_noisy_targets_is_their_mean() -> None:
    """Cross-entropy is least at the mean code, whose expectation is the mean itself: 0 or 100, half of the time."""
    code = TwoHot()
    p = code.encode(torch.tensor([0.0, 100.0])).mean(0)
    assert float(code.decode(p.clamp_min(1e-30).log())) == pytest.approx(50.0, rel=1e-4)


def slow_lambda(reward: list[float], value: list[float], discount: list[float], lam: float, done: list[bool], t: int) -> float:
    """R_t = (1 - lambda) sum_n lambda^(n-1) G_t^(n), the forward view, n-step returns up to where the line ends."""
    end = next(k for k in range(t, len(reward)) if done[k] or k == len(reward) - 1)
    total = 0.0
    for n in range(1, end - t + 2):
        g, product = 0.0, 1.0
        for k in range(t, t + n):
            g += product * reward[k]
            product *= discount[k]
        g += product * value[t + n - 1]
        total += g * (lam ** (n - 1) if t + n - 1 == end else (1 - lam) * lam ** (n - 1))
    return total


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_lambda_returns_are_the_forward_view(lam: float) -> None:
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 12, 5))
    discount = 0.9 * rng.random((12, 5))
    discount[rng.random((12, 5)) < 0.15] = 0
    done = rng.random((12, 5)) < 0.2
    ours = lambda_returns(reward, value, discount, lam, done)
    free = lambda_returns(reward, value, discount, lam)
    for t, row in np.ndindex(12, 5):
        columns = [a[:, row].tolist() for a in (reward, value, discount)]
        assert ours[t, row] == pytest.approx(slow_lambda(*columns, lam, done[:, row].tolist(), t))
        assert free[t, row] == pytest.approx(slow_lambda(*columns, lam, [False] * 12, t))


def test_lambda_returns_by_hand() -> None:
    reward, value = np.array([1.0, 2.0, 3.0], np.float32), np.array([10.0, 20.0, 30.0], np.float32)
    out = lambda_returns(reward, value, np.array([0.5, 0.5, 0.5], np.float32), 0.5)
    # R_3 = 3 + .5 * 30 = 18;  R_2 = 2 + .5 (.5 * 20 + .5 * 18) = 11.5;  R_1 = 1 + .5 (.5 * 10 + .5 * 11.5) = 6.375
    assert out.tolist() == [6.375, 11.5, 18.0] and out.dtype == np.float32
    terminated = lambda_returns(reward, value, np.array([0.5, 0.0, 0.5], np.float32), 0.5)
    truncated = lambda_returns(reward, value, np.full(3, 0.5, np.float32), 0.5, np.array([False, True, False]))
    assert terminated.tolist() == [1 + 0.5 * (5 + 1), 2.0, 18.0]
    assert truncated.tolist() == [1 + 0.5 * (5 + 6), 12.0, 18.0]


def test_lambda_returns_are_advantages_and_values() -> None:
    rng = np.random.default_rng(1)
    reward, value, next_value = rng.normal(size=(3, 9, 4))
    done = rng.random((9, 4)) < 0.3
    terminated = done & (rng.random((9, 4)) < 0.5)
    next_value[:-1] = np.where(done[:-1], next_value[:-1], value[1:])
    advantage = gae(reward, value, next_value, terminated, done, 0.9, 0.8)
    np.testing.assert_allclose(lambda_returns(reward, next_value, 0.9 * ~terminated, 0.8, done), advantage + value)
