"""The ladder of policy gradients: each rung's update against a slow version in float64, and what they share with PPO."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from gumdrop.agents.protocol import Rollout
from gumdrop.agents.registry import make_agent
from gumdrop.core_ml.nets.actor_critic import actor_critic
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector

RUNGS = ("immediate", "return", "discounted", "baseline", "critic", "td", "gae")
WHOLE = RUNGS[1:5]
CRITIC = RUNGS[4:]
GAMMA, LAMBDA = 0.9, 0.7
Array = Any


def batches(agent: Any, env: Any) -> Iterator[Rollout]:
    """Rollouts of an agent, with arrays of their own."""
    collector = Collector(env, agent)
    collector.begin(env.reset(2))
    while True:
        b = collector.rollout(agent.num_steps)
        yield Rollout(*(x.copy() for x in b[:7]), {name: x.copy() for name, x in b.extras.items()})


class Stream:
    """Rollouts as one: arrays (T, N, A, ...), and `after`, what each step led to, before a new episode began."""

    def __init__(self, rollouts: list[Rollout]) -> None:
        names = ("obs", "action", "reward", "terminated", "truncated")
        self.obs, self.action, self.reward, self.terminated, self.truncated = (
            np.concatenate([getattr(b, name) for b in rollouts]) for name in names
        )
        self.log_prob = np.concatenate([b.extras["log_prob"] for b in rollouts])
        self.after = np.concatenate([self.obs[1:], rollouts[-1].last_obs[None]])
        self.after[self.truncated] = np.concatenate([b.final_obs for b in rollouts])


def slow_weights(agent: Any, rung: str, s: Stream, now: int) -> tuple[list[tuple[Any, ...]], int]:
    """(obs, action, its log-probability then, weight, target) of each step learned from with the rollout that begins in row
    `now`, and how many of them are older; by the definitions. Values are the agent's; the baseline knows nothing yet."""

    def v(obs: Array) -> float:
        return float(agent.actor.values(obs[None])[0])

    learned: list[tuple[Any, ...]] = []
    late, (rows, n, a) = 0, s.reward.shape
    whole, gamma = rung in WHOLE, 1.0 if rung == "return" else GAMMA
    trace = {"immediate": 0.0, "td": 0.0, "gae": LAMBDA}.get(rung, 1.0)
    for first in range(0 if whole else now, rows):
        for i, k in np.ndindex(n, a):
            weight, factor, over = 0.0, 1.0, False
            here = v(s.obs[first, i, k]) if rung in CRITIC else 0.0
            for t in range(first, rows):
                cut = s.terminated[t, i] or s.truncated[t, i]
                bootstraps = rung in CRITIC and not s.terminated[t, i]
                next_ = gamma * v(s.after[t, i, k]) if bootstraps and (cut or not whole) else 0.0
                before = v(s.obs[t, i, k]) if rung in ("td", "gae") else 0.0
                weight += factor * (s.reward[t, i, k] + next_ - before)
                factor *= gamma * trace
                over = cut and t >= now
                if cut or factor == 0:
                    break
            if over or not whole:
                weight -= here if rung == "critic" else 0.0
                at = first, i, k
                learned.append((s.obs[at], s.action[at], s.log_prob[at], weight, weight + here))
                late += first < now
    return learned, late


def slow_gradient(agent: Any, env: Any, learned: list[tuple[Any, ...]], rung: str) -> Array:
    """d/d theta of mean(-ratio log pi A - ent_coef H + vf_coef (V - target)^2 / 2), by autograd in float64; the ratio of new to
    old probability is a number, and 1 for steps that did not wait."""
    o, space = agent.config, env.observation_space
    model = actor_critic(space.shape, int(env.action_space.n), False, o.network, o.hidden, 16, o.activation, o.shared_trunk)
    model.double().load_state_dict(
        {
            name: torch.tensor(x.astype(np.float64))
            for name, x in agent.learner.parameters.views(agent.learner.parameters.flat).items()
        }
    )
    obs, action, then, weight, target = (np.array(x) for x in zip(*learned, strict=True))
    distribution, value = model(torch.tensor(obs.reshape(len(obs), -1).astype(np.float64)))
    log_prob = distribution.log_prob(torch.tensor(action))
    ratio = (log_prob.detach() - torch.tensor(then)).exp()
    loss = -(ratio * log_prob * torch.tensor(weight)).mean() - o.ent_coef * distribution.entropy().mean()
    if rung in CRITIC:
        loss = loss + o.vf_coef * 0.5 * (value - torch.tensor(target)).square().mean()
    loss.backward()
    return np.concatenate([
        (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).numpy() for p in model.parameters()
    ])  # fmt: skip


@pytest.mark.parametrize("learner", ["fused", "torch"])
@pytest.mark.parametrize("rung", RUNGS)
def test_an_update_follows_the_gradient_of_log_pi_times_advantage(rung: str, learner: str) -> None:
    """Episodes of at most 7 steps cut into rollouts of 10: some wait for the second rollout, some are truncated."""
    env = make("frozenlake", {"time_limit": 7}, num_envs=6, seed=3)
    options = {"advantage": rung, "learner": learner, "gamma": GAMMA, "gae_lambda": LAMBDA, "num_steps": 10, "max_grad_norm": 0}
    agent: Any = make_agent("policy-gradient", {**options, "hidden": (16,), "ent_coef": 0.05}, env, 5)
    heads = agent.learner.parameters.views(agent.learner.parameters.flat)
    heads["policy_head.weight"][:] *= 30  # a policy that is not uniform
    rollouts = batches(agent, env)
    first = next(rollouts)
    first.reward[...] += np.random.default_rng(0).normal(size=first.reward.shape)  # rewards on the way, too
    if rung in WHOLE:  # an update of rate nothing takes the first rollout in, and leaves the network as it is
        before = agent.learner.parameters.flat.copy()
        agent.learn(first, 1.0)
        np.testing.assert_array_equal(agent.learner.parameters.flat, before)
        if rung == "baseline":
            agent.baseline.sum[:] = 0.0
        heads["policy_head.weight"][:] *= 2  # what waited was done by another policy
    second = next(rollouts)
    second.reward[...] += np.random.default_rng(1).normal(size=second.reward.shape)
    assert all(b.truncated.any() and b.terminated.any() for b in (first, second))
    learned, late = slow_weights(agent, rung, Stream([first, second]), 10)
    assert bool(late) == (rung in WHOLE)
    wanted = slow_gradient(agent, env, learned, rung)
    metrics = agent.learn(second, 0.0)
    got = agent.learner.parameters.grad
    assert metrics["rows"] == len(learned)
    assert metrics.get("late", 0.0) == pytest.approx(late / len(learned))
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max() + 1e-7)


@pytest.mark.parametrize("learner", ["fused", "torch"])
@pytest.mark.parametrize("world", ["four-rooms", "point-navigation", "candy-race"])
def test_it_is_ppo_with_one_epoch_one_minibatch_and_no_clipping(world: str, learner: str) -> None:
    env = make(world, {"time_limit": 7}, num_envs=8, seed=3)
    shared = {"num_steps": 10, "gamma": GAMMA, "gae_lambda": LAMBDA, "learner": learner, "shared_trunk": False}
    ours: Any = make_agent("policy-gradient", {**shared, "learning_rate": 1e-3, "ent_coef": 0.01}, env, 5)
    ppo: Any = make_agent("ppo", {**shared, "update_epochs": 1, "num_minibatches": 1, "normalise_advantage": False}, env, 5)
    np.testing.assert_array_equal(ours.learner.parameters.flat, ppo.learner.parameters.flat)
    before = ours.learner.parameters.flat.copy()
    batch = next(batches(ppo, env))
    one, other = ours.learn(batch, 0.0), ppo.learn(batch, 0.0)
    for name in set(one) & set(other):
        assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name
    moved = np.linalg.norm(ppo.learner.parameters.flat - before)
    assert np.linalg.norm(ours.learner.parameters.flat - ppo.learner.parameters.flat) < 1e-3 * moved
    np.testing.assert_allclose(ours.learner.parameters.grad, ppo.learner.parameters.grad, atol=1e-5)


@pytest.mark.parametrize("options", [*({"advantage": rung} for rung in RUNGS[:-1]), {"normalise_observation": True}], ids=str)
def test_every_rung_goes_on_exactly_from_its_state(options: dict[str, Any]) -> None:
    """With episodes under way in it."""
    chosen = {"num_steps": 5, "hidden": (16,), **options}
    env = make("cartpole", {}, num_envs=6, seed=3)
    agent: Any = make_agent("policy-gradient", chosen, env, 5)
    collector = Collector(env, agent)
    collector.begin(env.reset(1))
    for update in range(12):
        agent.learn(collector.rollout(5), update / 20)
    twin: Any = make_agent("policy-gradient", chosen, env, 77)
    twin.load_state_dict({name: np.array(array) for name, array in agent.state_dict().items()})
    if options.get("advantage") in WHOLE:
        assert twin.episodes.state()["count"] > 0
    for update in range(12, 16):
        batch = collector.rollout(5)
        for _ in range(5):
            twin.actor.rng.draw()  # of acting
        assert agent.learn(batch, update / 20) == twin.learn(batch, update / 20)
    state, other = agent.state_dict(), twin.state_dict()
    assert state.keys() == other.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, other[name])


def test_episodes_that_do_not_end_are_named() -> None:
    env = make("maze", {"layout": "S.G", "goal_ends": False, "time_limit": 0}, num_envs=4)
    agent = make_agent("policy-gradient", {"advantage": "return", "buffer_size": 100, "num_steps": 10}, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    for _ in range(2):
        assert agent.learn(collector.rollout(10), 0.0) == {"rows": 0.0}
    with pytest.raises(
        ValueError, match="120 steps of unfinished episodes, and room for 100: raise agent.buffer_size"
    ) as error:
        agent.learn(collector.rollout(10), 0.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rung", RUNGS)
def test_each_rung_learns_where_pay_comes_at_once(rung: str) -> None:
    env = make("corridor", {"task": "match"}, num_envs=32, seed=0)
    agent = make_agent("policy-gradient", {"advantage": rung, "num_steps": 10, "learning_rate": 0.01}, env, 0)
    collector = Collector(env, agent)
    collector.begin(env.reset(0))
    for update in range(80):
        metrics = agent.learn(collector.rollout(10), update / 80)
        assert all(math.isfinite(x) for x in metrics.values())
    assert collector.rollout(10).reward.mean() > 0.9  # half by chance
