"""What each estimate of the policy gradient estimates, in a world of three states where all of it can be computed exactly.

An episode begins in a random state, lasts at most H steps, and ends earlier by chance. The reference is float64: the value
J(theta) by dynamic programming and its gradient by autograd; for biased estimates the sum over all states, actions and times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.core_ml.maths.returns import RunningMean, discounted_return, gae, time_in_episode

Array = Any
H, EPISODES = 6, 200_000
START = np.array([0.5, 0.3, 0.2])
MOVE = np.array([  # P(next state | state, action), 0 where the rest ends the episode
    [[0.1, 0.6, 0.2], [0.5, 0.1, 0.3]],
    [[0.3, 0.2, 0.4], [0.0, 0.3, 0.5]],
    [[0.6, 0.2, 0.1], [0.2, 0.2, 0.2]],
])  # fmt: skip
REWARD = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 3.0]])  # the immediate best is not what leads on
THETA = np.array([[0.2, -0.3], [0.5, 0.1], [-0.4, 0.3]])
WRONG_V = np.array([3.0, -2.0, 1.0])  # a critic that is nobody's value


def policy(theta: torch.Tensor) -> torch.Tensor:
    return theta.softmax(1)


def value_of(theta: torch.Tensor, gamma: float, last: Array | None = None) -> torch.Tensor:
    """J = E sum_t gamma^t r_t; `last`: what a state is worth in which the time is up."""
    pi, move, reward = policy(theta), torch.tensor(MOVE), torch.tensor(REWARD)
    v = torch.zeros(3, dtype=torch.float64) if last is None else torch.tensor(last)
    for _ in range(H):
        v = (pi * (reward + gamma * move @ v)).sum(1)
    return torch.tensor(START) @ v


def exact_gradient(gamma: float) -> Array:
    theta = torch.tensor(THETA, requires_grad=True)
    value_of(theta, gamma).backward()  # type: ignore[no-untyped-call]
    assert theta.grad is not None
    return theta.grad.numpy()


def visits() -> list[Array]:
    """d_t(s): how likely an episode is in s at time t."""
    pi, d = policy(torch.tensor(THETA)).numpy(), [START]
    for _ in range(H - 1):
        d.append(np.einsum("s,sa,sax->x", d[-1], pi, MOVE))
    return d


def expectation(weight: list[Array]) -> Array:
    """sum over t, s, a of d_t(s) grad pi(a|s) X_t(s, a): what an estimate is whose weight of a step is X on average."""
    pi = policy(torch.tensor(THETA)).numpy()
    score = np.eye(2)[None] - pi[:, None, :]  # d log pi(a|s) / d theta[s, :] for each a
    return np.asarray(sum(np.einsum("s,sa,sa,sab->sb", d, pi, x, score) for d, x in zip(visits(), weight, strict=True)))


def later(gamma: float, last: Array) -> tuple[list[Array], list[Array]]:
    """Q_t(s, a) and V_t(s) with discount `gamma`."""
    pi, v, qs, vs = policy(torch.tensor(THETA)).numpy(), last, [], []
    for _ in range(H):
        q = REWARD + gamma * MOVE @ v
        v = (pi * q).sum(1)
        qs.append(q)
        vs.append(v)
    return qs[::-1], vs[::-1]


class Sample:
    """Many episodes, side by side: arrays (H, EPISODES); what comes after an episode's end has weight 0."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        pi = policy(torch.tensor(THETA)).numpy()
        self.state, self.next = np.zeros((2, H, EPISODES), np.int64)
        self.action = np.zeros((H, EPISODES), np.int64)
        self.alive, self.terminated = np.zeros((2, H, EPISODES), np.bool_)
        s, alive = rng.choice(3, EPISODES, p=START), np.ones(EPISODES, np.bool_)
        for t in range(H):
            a = (rng.random(EPISODES) > pi[s, 0]).astype(np.int64)
            u, edges = rng.random(EPISODES), MOVE[s, a].cumsum(1)
            to = (u[:, None] >= edges).sum(1)
            self.state[t], self.action[t], self.alive[t], self.terminated[t] = s, a, alive, alive & (to == 3)
            self.next[t] = np.minimum(to, 2)
            alive = alive & (to < 3)
            s = self.next[t]
        self.reward = REWARD[self.state, self.action] * self.alive
        self.done = self.terminated | ~self.alive
        self.done[-1] = True  # the time is up
        self.truncated = self.done & ~self.terminated & self.alive
        self.time = np.broadcast_to(np.arange(H)[:, None], self.state.shape)
        self.score = np.eye(2)[self.action] - pi[self.state]

    def gradient(self, weight: Array) -> tuple[Array, Array]:
        """Mean over episodes of sum_t grad log pi(a_t|s_t) weight_t, (3, 2), and its standard error."""
        per = np.zeros((EPISODES, 3, 2))
        for t in range(H):
            per[np.arange(EPISODES), self.state[t]] += self.score[t] * (weight * self.alive)[t][:, None]
        return per.mean(0), per.std(0) / np.sqrt(EPISODES)

    def agrees(self, weight: Array, wanted: Array) -> float:
        """How many standard errors the estimate is away, at the worst of six parameters."""
        mean, error = self.gradient(weight)
        return float(np.abs((mean - wanted) / error).max())


@pytest.fixture(scope="module")
def sample() -> Sample:
    return Sample(0)


def returns(s: Sample, gamma: float, last: Array | None = None) -> Array:
    bootstrap = np.zeros(s.reward.shape) if last is None else last[s.next] * s.truncated
    return discounted_return(s.reward, bootstrap, s.done, gamma)


NEAR, FAR = 4.0, 20.0  # standard errors: six parameters within the one by chance, none as far as the other


def test_the_reference_is_right() -> None:
    """The policy gradient theorem (Sutton et al. 2000): autograd of J equals the sum over states and actions."""
    np.testing.assert_allclose(expectation(later(1.0, np.zeros(3))[0]), exact_gradient(1.0), rtol=1e-12)
    theta, e = torch.tensor(THETA), torch.zeros(3, 2, dtype=torch.float64)
    e[1, 0] = 1e-6
    difference = (value_of(theta + e, 1.0) - value_of(theta - e, 1.0)) / 2e-6
    assert float(difference) == pytest.approx(exact_gradient(1.0)[1, 0], rel=1e-7)


def test_return_to_go_is_unbiased_and_immediate_reward_is_not(sample: Sample) -> None:
    exact = exact_gradient(1.0)
    assert sample.agrees(returns(sample, 1.0), exact) < NEAR
    # Immediate reward: the gradient of what is paid at once, with no thought of where it leads.
    at_once = expectation([REWARD] * H)
    assert sample.agrees(sample.reward, at_once) < NEAR
    assert sample.agrees(sample.reward, exact) > FAR


def test_discounting_is_a_gradient_of_the_discounted_value_only_with_gamma_to_the_t(sample: Sample) -> None:
    """Without that factor, as everybody has it, it is sum_t d_t Q^gamma grad pi (Thomas 2014; Nota & Thomas 2020)."""
    gamma = 0.7
    g = returns(sample, gamma)
    assert sample.agrees(g, expectation(later(gamma, np.zeros(3))[0])) < NEAR
    assert sample.agrees(gamma**sample.time * g, exact_gradient(gamma)) < NEAR
    assert sample.agrees(g, exact_gradient(gamma)) > FAR
    assert sample.agrees(g, exact_gradient(1.0)) > FAR


@pytest.mark.parametrize("size", [1, H])
def test_a_baseline_changes_the_noise_only(sample: Sample, size: int) -> None:
    exact, g = exact_gradient(1.0), returns(sample, 1.0)
    other = Sample(1)  # a baseline that has not seen these episodes
    mean = RunningMean(size, 0.9)
    mean.update(other.time[other.alive], returns(other, 1.0)[other.alive])
    weight = g - mean.at(time_in_episode(sample.done & sample.alive))
    assert sample.agrees(weight, exact) < NEAR
    assert (sample.gradient(weight)[1] ** 2).sum() < 0.7 * (sample.gradient(g)[1] ** 2).sum()


def test_a_monte_carlo_critic_may_be_wrong(sample: Sample) -> None:
    exact = exact_gradient(1.0)
    g = returns(sample, 1.0)
    assert sample.agrees(g - WRONG_V[sample.state], exact) < NEAR
    right = np.array(later(1.0, np.zeros(3))[1])[sample.time, sample.state]
    assert sample.agrees(g - right, exact) < NEAR
    assert (sample.gradient(g - right)[1] ** 2).sum() < (sample.gradient(g - WRONG_V[sample.state])[1] ** 2).sum()
    # Where the time is up it counts what the critic says: the value of a world that pays WRONG_V then.
    theta = torch.tensor(THETA, requires_grad=True)
    value_of(theta, 1.0, WRONG_V).backward()  # type: ignore[no-untyped-call]
    assert theta.grad is not None
    assert sample.agrees(returns(sample, 1.0, WRONG_V) - WRONG_V[sample.state], theta.grad.numpy()) < NEAR


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_td_and_gae_are_as_wrong_as_their_critic(sample: Sample, trace: float) -> None:
    """E[A_t | s, a] = r + gamma E[V(s') + lambda E[A_{t+1} | s']] - V(s), where no step follows the last; V cancels for
    lambda = 1 but for what it adds at the end."""
    gamma, v = 0.9, WRONG_V
    pi, weights, after = policy(torch.tensor(THETA)).numpy(), [], np.zeros(3)
    for _ in range(H):
        weights.append(REWARD + gamma * MOVE @ (v + trace * after) - v[:, None])
        after = (pi * weights[-1]).sum(1)
    got = gae(sample.reward, v[sample.state], v[sample.next], sample.terminated, sample.done, gamma, trace)
    assert sample.agrees(got, expectation(weights[::-1])) < NEAR
    discounted = expectation(later(gamma, np.zeros(3))[0])
    assert sample.agrees(got, discounted) > (NEAR if trace == 1 else FAR)


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_td_and_gae_with_the_true_critic_are_as_right_as_returns(sample: Sample, trace: float) -> None:
    """V_t(s) knows the time, as a critic must whose world has a deadline: one more column of the table, here."""
    gamma = 0.9
    v = np.array([*later(gamma, np.zeros(3))[1], np.zeros(3)])
    now, then = v[sample.time, sample.state], v[sample.time + 1, sample.next]
    got = gae(sample.reward, now, then, sample.terminated, sample.done, gamma, trace)
    assert sample.agrees(got, expectation(later(gamma, np.zeros(3))[0])) < NEAR
