"""Bandit agents against indices worked out by hand and slow versions of themselves; which worlds they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gumdrop.agents.bandit import shared
from gumdrop.agents.bandit.kl_ucb import upper_bound
from gumdrop.agents.registry import make_agent
from gumdrop.envs.make import make
from gumdrop.envs.solvers import bayes


def agent_in(name: str, options: dict[str, Any], world: str = "bandit", environments: int = 1, **env: Any) -> tuple[Any, Any]:
    made = make(world, env, num_envs=environments, seed=0)
    return make_agent(name, options, made, 0), made


def seen(pulls: list[tuple[int, float]], arms: int, environments: int = 1) -> list[np.ndarray]:
    """Observations of an episode in which these arms were pulled and paid so, the first before any pull."""
    rows = [np.zeros(arms + 2, np.float32)]
    for t, (arm, reward) in enumerate(pulls, 1):
        rows.append(np.zeros(arms + 2, np.float32))
        rows[-1][[arm, arms, arms + 1]] = 1, reward, t / 100
    return [np.broadcast_to(row, (environments, 1, arms + 2)) for row in rows]


def after(
    agent: Any, pulls: list[tuple[int, float]], arms: int, environments: int = 1
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The arm that each environment pulls (environments,) after these pulls, and what it remembers."""
    carry = agent.initial(environments)
    for obs in seen(pulls, arms, environments):
        action, carry, _ = agent.act(obs, carry, "sample")
    return action[:, 0], carry


@pytest.mark.parametrize(("discount", "window"), [(1.0, 0), (0.9, 0), (1.0, 7)])
def test_estimates_as_a_list_of_pulls_gives_them(discount: float, window: int) -> None:
    rng = np.random.default_rng(0)
    carry, past = shared.blank(3, 4, window), [[], [], []]  # type: ignore[var-annotated]
    for _ in range(30):
        rows = np.flatnonzero(rng.random(3) < 0.8)
        arm, reward = rng.integers(4, size=len(rows)), rng.random(len(rows))
        shared.record(carry, rows, arm, reward, discount, window)
        for i, a, r in zip(rows, arm, reward, strict=True):
            past[i].append((a, r))
        for i in range(3):
            pulls, total = np.zeros(4), np.zeros(4)
            for age, (a, r) in enumerate(reversed(past[i])):
                if not window or age < window:
                    pulls[a] += discount**age
                    total[a] += r * discount**age
            np.testing.assert_allclose(carry["pulls"][i], pulls, atol=1e-12)
            np.testing.assert_allclose(carry["reward"][i], total, atol=1e-12)


def test_ties_are_broken_evenly_or_by_the_first() -> None:
    index = np.tile([1.0, 3.0, 3.0, np.inf, np.inf], (40_000, 1))
    assert (shared.pick(index, shared.generator(0), "first") == 3).all()
    assert np.bincount(shared.pick(index, shared.generator(0))[:, 0], minlength=5) / 40_000 == pytest.approx(
        [0, 0, 0, 0.5, 0.5], abs=0.01
    )


def test_ucb1_takes_every_arm_once_then_the_largest_index() -> None:
    agent, _ = agent_in("ucb1", {"c": 0.5}, arms=3)
    firsts = {tuple(after(agent, [(0, 1.0), (2, 0.0)], 3, 50)[0])}
    assert firsts == {(1,) * 50}
    # After 4 of 5 and 1 of 2, mean + c sqrt(2 ln 7 / n) is 1.241 and 1.197 with c = 0.5, 1.329 and 1.337 with c = 0.6.
    pulls = [*[(0, 1.0)] * 4, (0, 0.0), (1, 1.0), (1, 0.0)]
    for c, expected in ((0.5, 0), (0.6, 1)):
        agent, _ = agent_in("ucb1", {"c": c}, arms=2)
        assert after(agent, pulls, 2)[0][0] == expected
    # Without the time, mean + c / sqrt(n) is 1.292 and 1.278 with c = 1.1, 1.337 and 1.349 with c = 1.2.
    for c, expected in ((1.1, 0), (1.2, 1)):
        agent, _ = agent_in("ucb1", {"c": c, "confidence": "constant"}, arms=2)
        assert after(agent, pulls, 2)[0][0] == expected
    # With a prior an arm that was never pulled has an index: 1/2 + 0.1 sqrt(2 ln 1 / 2).
    agent, _ = agent_in("ucb1", {"c": 0.1, "prior": (1.0, 1.0)}, arms=2)
    assert after(agent, [(0, 1.0)], 2)[0][0] == 0


def test_a_discount_lets_ucb1_come_back_to_an_arm() -> None:
    pulls = [(0, 0.0), *[(1, 1.0)] * 60]
    for discount, expected in ((1.0, 1), (0.5, 0)):
        agent, _ = agent_in("ucb1", {"c": 0.1, "discount": discount}, arms=2)
        assert after(agent, pulls, 2)[0][0] == expected
    agent, _ = agent_in("ucb1", {"c": 0.1, "window": 20}, arms=2)
    assert after(agent, pulls, 2)[0][0] == 0  # forgotten altogether: as good as new


def test_kl_bound_as_bisection_finds_it() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate(
        (rng.random(300), [0, 0, 1, 1, 0.5], 1 - 10.0 ** -rng.uniform(0, 12, 50), 10.0 ** -rng.uniform(0, 12, 50))
    )
    level = 10.0 ** rng.uniform(-6, 1.5, len(p))
    level[:10] = 0

    def kl(a: float, b: float) -> float:
        return (a * math.log(a / b) if a > 0 else 0.0) + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)

    for a, x, found in zip(p, level, upper_bound(p, level), strict=True):
        low, high = float(a), 1.0
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if x == 0 or a == 1 or middle >= 1 or kl(a, middle) > x else (middle, high)
        assert found == pytest.approx(low, abs=2e-9), (a, x)


@pytest.mark.parametrize(("plus", "bounds", "expected"), [(False, (0.994641, 0.998791), 1), (True, (0.977410, 0.970020), 0)])
def test_kl_ucb_by_hand(plus: bool, bounds: tuple[float, float], expected: int) -> None:
    """3 of 4 and 15 of 16 pulls paid: n d(mean, bound) is ln 20, or with plus ln(20 / n)."""
    for p, q, n in ((3 / 4, bounds[0], 4), (15 / 16, bounds[1], 16)):
        divergence = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        assert n * divergence == pytest.approx(math.log(20 / n if plus else 20), abs=1e-3)
    pulls = [(0, float(i < 3)) for i in range(4)] + [(1, float(i < 15)) for i in range(16)]
    agent, _ = agent_in("kl-ucb", {"plus": plus}, arms=2)
    assert after(agent, pulls, 2)[0][0] == expected


def test_thompson_pulls_an_arm_as_often_as_it_is_likely_best() -> None:
    """P(Beta(3, 1) > Beta(1, 2)) = integral of 3 x^2 (1 - (1 - x)^2) = 3 (2/4 - 1/5) = 0.9; sd of the share 0.0015."""
    agent, _ = agent_in("thompson", {}, arms=2)
    arm, _ = after(agent, [(0, 1.0), (1, 0.0), (0, 1.0)], 2, 40_000)
    assert (arm == 0).mean() == pytest.approx(0.9, abs=0.006)


def test_gaussian_thompson_uses_the_posterior() -> None:
    """Prior N(0, 1), noise 1: 3 and -1 from arm 0 give N(2/3, 1/3), arm 1 is N(0, 1): P = Phi((2/3) / sqrt(4/3))."""
    options = {"prior_mean": 0.0, "prior_sd": 1.0, "noise": 1.0}
    agent, _ = agent_in("thompson", options, arms=2, reward="gaussian")
    arm, _ = after(agent, [(0, 3.0), (0, -1.0)], 2, 40_000)
    assert (arm == 0).mean() == pytest.approx(0.5 * (1 + math.erf((2 / 3) / math.sqrt(4 / 3) / math.sqrt(2))), abs=0.01)


def test_thompson_tosses_a_coin_for_a_reward_between() -> None:
    agent, _ = agent_in("thompson", {}, arms=2, reward="beta")
    _, carry = after(agent, [(0, 0.25)], 2, 20_000)
    assert set(carry["reward"][:, 0]) == {0.0, 1.0} and carry["reward"][:, 0].mean() == pytest.approx(0.25, abs=0.015)


def test_exp3_by_hand() -> None:
    """gamma = 0.2, k = 2: p = (1/2, 1/2); a reward of 1 from arm 0 multiplies its weight by exp(0.2 * (1 / 0.5) / 2)."""
    agent, _ = agent_in("exp3", {"gamma": 0.2}, arms=2)
    carry = agent.initial(40_000)
    first, *_ = seen([], 2, 40_000)
    action, carry, _ = agent.act(first, carry, "sample")
    assert (action == 0).mean() == pytest.approx(0.5, abs=0.01) and (carry["chance"] == 0.5).all()
    action, carry, _ = agent.act(seen([(0, 1.0)], 2, 40_000)[1], carry, "sample")
    weight = math.exp(0.2)
    p = 0.8 * weight / (weight + 1) + 0.1
    assert (action == 0).mean() == pytest.approx(p, abs=0.01)
    np.testing.assert_allclose(carry["chance"], np.where(action[:, 0] == 0, p, 1 - p))
    assert agent_in("exp3", {}, arms=2, pulls=100)[0].gamma == pytest.approx(math.sqrt(2 * math.log(2) / ((math.e - 1) * 100)))


def test_epsilon_first_explores_first() -> None:
    options = {"epsilon": 0.04}  # 4 of 100 pulls
    pulls = [(0, 1.0)] * 3
    agent, _ = agent_in("epsilon-first", options, arms=4)
    assert np.bincount(after(agent, pulls, 4, 4000)[0], minlength=4) == pytest.approx([1000] * 4, abs=150)
    assert set(after(agent, [*pulls, (0, 1.0)], 4, 4000)[0]) == {0}
    # Softmax: posterior means 4/5 and 1/2 at temperature 0.3 give odds of e to 1.
    agent, _ = agent_in("epsilon-first", {**options, "exploration": "softmax", "temperature": 0.3}, arms=2)
    assert (after(agent, pulls, 2, 40_000)[0] == 0).mean() == pytest.approx(math.e / (1 + math.e), abs=0.01)


def test_epsilon_greedy_explores_as_often_as_it_says() -> None:
    pulls = [(0, 1.0)] * 7
    for options, epsilon in (
        ({"epsilon": 0.3}, 0.3), ({"schedule": "decaying", "scale": 0.5}, 0.5 * 2 / 8), ({"epsilon": 0.0}, 0.0)
    ):  # fmt: skip
        agent, _ = agent_in("epsilon-greedy", options, arms=2)
        assert (after(agent, pulls, 2, 40_000)[0] == 1).mean() == pytest.approx(epsilon / 2, abs=0.01)


def rewards(name: str, options: dict[str, Any], world: str, environments: int, **env_options: Any) -> np.ndarray:
    """Mean reward of the pulled arms of one episode, (environments,)."""
    agent, env = agent_in(name, options, world, environments, **env_options)
    obs, carry, total = env.reset(0), agent.initial(environments), np.zeros(environments)
    for _ in range(env.world.config.pulls):
        action, carry, _ = agent.act(obs, carry, "sample")
        total += env.state.mean[np.arange(environments), action[:, 0]]
        obs = env.step(action).obs
    return total


@pytest.mark.parametrize("name", ["bayes-optimal", "gittins"])
def test_exact_tables_get_what_dynamic_programming_promises(name: str) -> None:
    total = rewards(name, {}, "bandit", 30_000, arms=3, pulls=8)
    half = 3 * total.std() / math.sqrt(len(total))
    assert abs(total.mean() - bayes.bayes_bandit(3, 8).value) < half < 0.05


@pytest.mark.parametrize("weights", ["disjoint", "shared"])
@pytest.mark.parametrize("name", ["lin-ucb", "linear-thompson"])
def test_linear_agents_keep_the_regressions_of_what_they_saw(name: str, weights: str) -> None:
    """The slow version keeps all features and rewards of each regression and inverts its precision."""
    agent, env = agent_in(name, {"noise": 0.4, "prior_sd": 0.8}, "bandit-contextual", 3, weights=weights, arms=3, features=2)
    obs, carry = env.reset(1), agent.initial(3)
    data: dict[tuple[int, int], list[tuple[np.ndarray, float]]] = {}
    for _ in range(30):
        action, carry, _ = agent.act(obs, carry, "sample")
        context = obs[:, 0, 5:].reshape(3, -1, 2).astype(float)
        chosen = np.array(action[:, 0])
        step = env.step(action)
        for i, a in enumerate(chosen):
            x = np.append(1.0, context[i, a if weights == "shared" else 0])
            data.setdefault((i, 0 if weights == "shared" else int(a)), []).append((x, float(step.reward[i, 0])))
        obs = step.obs.copy()
    agent.act(obs, carry, "sample")
    for (i, m), rows in data.items():
        x, y = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
        covariance = np.linalg.inv(np.eye(3) / 0.64 + x.T @ x / 0.16)
        np.testing.assert_allclose(carry["covariance"][i, m], covariance, rtol=1e-6)
        np.testing.assert_allclose(carry["mean"][i, m], covariance @ x.T @ y / 0.16, rtol=1e-6, atol=1e-9)


def test_lin_ucb_takes_the_largest_bound() -> None:
    agent, env = agent_in("lin-ucb", {"alpha": 2.0}, "bandit-contextual", 50, arms=3, features=2)
    obs, carry = env.reset(1), agent.initial(50)
    for _ in range(5):
        action, carry, _ = agent.act(obs, carry, "sample")
        x = np.concatenate((np.ones((50, 1)), obs[:, 0, 5:]), 1)
        mean = np.einsum("nd,nkd->nk", x, carry["mean"])
        index = mean + 2 * np.sqrt(np.einsum("nd,nkde,ne->nk", x, carry["covariance"], x))
        assert (index[np.arange(50), action[:, 0]] >= index.max(1) - 1e-12).all()
        obs = env.step(action).obs.copy()


def test_gp_ucb_conditioned_one_pull_at_a_time_is_scikit_learns() -> None:
    (agent, env), (slow, _) = (
        agent_in("gp-ucb", {"model": model}, "bandit-line", 3, arms=8) for model in ("sequential", "scikit-learn")
    )
    obs, carry, other = env.reset(2), agent.initial(3), slow.initial(3)
    for _ in range(12):
        action, carry, _ = agent.act(obs, carry, "sample")
        expected, other, _ = slow.act(obs, other, "sample")
        mean, sd = slow._posteriors(other)
        np.testing.assert_allclose(carry["mean"], mean, atol=1e-6)
        np.testing.assert_allclose(np.sqrt(np.diagonal(carry["covariance"], axis1=1, axis2=2)), sd, atol=1e-5)
        if carry["t"].all():  # before the first pull all arms tie
            assert (action == expected).all()
        obs = env.step(action).obs.copy()


def test_gp_ucb_takes_the_largest_bound() -> None:
    agent, env = agent_in("gp-ucb", {"scale": 1.0, "delta": 0.5}, "bandit-line", 200, arms=8)
    obs, carry = env.reset(2), agent.initial(200)
    for t in range(1, 8):
        action, carry, _ = agent.act(obs, carry, "sample")
        sd = np.sqrt(np.diagonal(carry["covariance"], axis1=1, axis2=2))
        index = carry["mean"] + math.sqrt(2 * math.log(8 * t**2 * math.pi**2 / 3)) * sd
        assert (index[np.arange(200), action[:, 0]] >= index.max(1) - 1e-12).all()
        obs = env.step(action).obs.copy()


def test_gp_ucb_can_fit_the_length_scale() -> None:
    total = rewards("gp-ucb", {"model": "scikit-learn", "fit": True}, "bandit-line", 4, pulls=10)
    assert np.isfinite(total).all()


def test_neural_linear_learns() -> None:
    """Its likelihood rises from update to update, and with it what it gets on tasks that it has not seen."""
    from gumdrop.experiments.run.collect.host import Collector

    agent, env = agent_in("neural-linear", {}, "bandit-contextual-nonlinear", 64, pulls=60)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    found = [agent.learn(collector.rollout(agent.num_steps), 0.0)["loss/nll"] for _ in range(15)]
    assert np.mean(found[-3:]) < found[0] - 0.2
    assert "loss/nll" not in agent_in("neural-linear", {"learning_rate": 0}, "bandit-contextual", 4)[0].learn(None, 0.0)


@pytest.mark.parametrize("weights", ["disjoint", "shared"])
def test_neural_linear_learns_from_each_arms_own_rewards(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gumdrop.experiments.run.collect.host import Collector

    options = {"update_epochs": 1, "num_minibatches": 1}
    agent, env = agent_in("neural-linear", options, "bandit-contextual", 5, pulls=6, arms=3, features=2, weights=weights)
    collector, given = Collector(env, agent), []
    monkeypatch.setattr(agent.model, "train", lambda *parts: given.append(parts) or (0.0, 0.0))
    collector.begin(env.reset(0))
    batch = collector.rollout(6)
    state = agent.rng.bit_generator.state
    agent.learn(batch, 0.0)
    agent.rng.bit_generator.state = state
    order = agent.rng.permutation(5)
    x, y, weight = given[0][:3]
    for row, n in enumerate(order):
        for t in range(6):
            arm = batch.action[t, n, 0]
            at = 5 + (2 * arm if weights == "shared" else 0)
            assert x[row, t].tolist() == batch.obs[t, n, 0, at : at + 2].tolist() and y[row, t] == batch.reward[t, n, 0]
            assert weight[row, :, t].tolist() == ([True] if weights == "shared" else [a == arm for a in range(3)])


REFUSED = [
    ("ucb1", {}, "candy", {}, "take --env bandit"),
    ("thompson", {}, "bandit", {"observation": "counts"}, "take observation=last"),
    ("kl-ucb", {}, "bandit-gaussian", {}, "reward=gaussian is not for it"),
    ("exp3", {}, "bandit-gaussian", {}, "reward=gaussian is not for it"),
    ("thompson", {"posterior": "beta"}, "bandit-gaussian", {}, "reward=gaussian is not for it"),
    ("thompson", {"prior": [0, 1]}, "bandit", {}, "no Beta distribution"),
    ("ucb1", {"prior": [-1, 1]}, "bandit", {}, "numbers from 0 on"),
    ("ucb1", {"discount": 0.9, "window": 5}, "bandit", {}, "choose one"),
    ("gittins", {}, "bandit", {"pulls": 1000}, "take pulls=200"),
    ("gittins", {}, "bandit-switch", {}, "means that stay"),
    ("bayes-optimal", {}, "bandit", {}, "take pulls=25, or agent gittins"),
    ("bayes-optimal", {}, "bandit-beta", {"pulls": 10}, "Bernoulli arms"),
    ("lin-ucb", {}, "bandit", {}, "needs a context"),
    ("linear-thompson", {}, "bandit-contextual", {"observation": "context"}, "take observation=last"),
    ("neural-linear", {}, "bandit", {}, "needs a context"),
    ("neural-linear", {"hidden": [0]}, "bandit-contextual", {}, "widths in 1..1024"),
    ("gp-ucb", {}, "bandit", {}, "take --env bandit-line"),
    ("gp-ucb", {"fit": True}, "bandit-line", {}, "model=scikit-learn"),
]


@pytest.mark.parametrize(("name", "options", "world", "env_options", "line"), REFUSED)
def test_what_it_cannot_play_costs_one_line(name: str, options: Any, world: str, env_options: Any, line: str) -> None:
    env = make(world, env_options, num_envs=1)
    with pytest.raises(ValueError, match=f"agent {name}: .*{line}") as caught:
        make_agent(name, options, env, 0)
    assert "\n" not in str(caught.value)
