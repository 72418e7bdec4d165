"""Deep Q-learning: what it stores, how it explores, how many gradient steps it takes; its options; that it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import NonFinite, Rollout
from gumdrop.agents.registry import agent_config, make_agent
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.episodes import run_episodes

pytestmark = pytest.mark.xdist_group("fused")  # one worker compiles, the others would wait


def started(world: str, options: dict[str, Any], agent: dict[str, Any], n: int = 4) -> tuple[Any, Any, Collector]:
    env = make(world, options, num_envs=n)
    made: Any = make_agent("dqn", agent, env, 1)
    collector = Collector(env, made)
    collector.begin(env.reset(5))
    return env, made, collector


@pytest.mark.parametrize("world", ["cartpole", "corridor", "matrix"])
def test_a_rollout_in_one_call_is_what_act_and_step_give(world: str) -> None:
    """To the bit, rollouts, replay and parameters, for one agent and for two in an environment."""
    found = []
    for native in (True, False):
        env, agent, collector = started(world, {}, {"learning_starts": 32, "epsilon": 0.5, "batch_size": 16}, n=100)
        assert collector._native is not None
        if not native:
            collector._native = None
        parts = []
        for k in range(4):
            batch = collector.rollout(agent.num_steps)
            parts += [np.array(x) for x in batch[:7]]
            agent.learn(batch, k / 4)
        found.append([*parts, *agent.state_dict().values()])
        env.close()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*found, strict=True))


def batch_of(agent: Any, t: int, n: int, a: int, seed: int = 0) -> Rollout:
    rng = np.random.default_rng(seed)
    shape = agent.spaces.observation.shape
    terminated, truncated = rng.random((t, n)) < 0.1, rng.random((t, n)) < 0.1
    obs = rng.normal(size=(t, n, a, *shape)).astype(np.float32)
    last, final = (rng.normal(size=(k, a, *shape)).astype(np.float32) for k in (n, int(truncated.sum())))
    action = rng.integers(0, agent.actions, (t, n, a))
    return Rollout(obs, action, rng.normal(size=(t, n, a)).astype(np.float32), terminated, truncated, last, final, {})


def test_what_is_stored() -> None:
    """Two agents in an environment: each is a stream; a truncated step leads to its episode's last observation."""
    env = make("matrix", {}, num_envs=3)
    agent: Any = make_agent("dqn", {"buffer_size": 100}, env, 0)
    batch = batch_of(agent, 5, 3, 2)
    agent._store(batch)
    replay, k = agent.replay, 0
    final = iter(batch.final_obs)
    for t in range(5):
        for i in range(3):
            after = batch.obs[t + 1, i] if t < 4 else batch.last_obs[i]
            after = next(final) if batch.truncated[t, i] else after
            for j in range(2):
                np.testing.assert_array_equal(replay.obs[k], batch.obs[t, i, j])
                np.testing.assert_array_equal(replay.next_obs[k], after[j])
                assert replay.action[k] == batch.action[t, i, j] and replay.reward[k] == batch.reward[t, i, j]
                assert replay.terminated[k] == batch.terminated[t, i] and replay.truncated[k] == batch.truncated[t, i]
                k += 1
    assert replay.head == k == 30 and replay.streams == 6


def test_gradient_steps_follow_the_environment_steps() -> None:
    """64 steps a rollout, one gradient step for every 24 of those after the first 100: remainders are carried."""
    env = make("cartpole", {}, num_envs=4)
    options = {"update_every": 24, "learning_starts": 100, "batch_size": 4, "target_update_interval": 3}
    agent: Any = make_agent("dqn", options, env, 0)
    seen = []
    for k in range(10):
        agent.learn(batch_of(agent, 16, 4, 1, k), 0.1)
        seen.append(agent.gradient_steps)
    assert seen == [0, *[64 * k // 24 - 100 // 24 for k in range(2, 11)]]
    assert not np.array_equal(agent.learner.target, agent.learner.parameters.flat)
    before = agent.learner.target.copy()
    agent.learn(batch_of(agent, 16, 4, 1, 10), 0.1)  # step 24 and 25: 24 is a multiple of 3
    assert agent.gradient_steps == 25 and not np.array_equal(agent.learner.target, before)


@pytest.mark.parametrize("learner", ["fused", "torch"])
def test_the_target_network_is_copied_when_it_is_due(learner: str) -> None:
    env = make("cartpole", {}, num_envs=4)
    agent: Any = make_agent(
        "dqn",
        {"update_every": 16, "learning_starts": 0, "batch_size": 4, "target_update_interval": 4, "learner": learner},
        env,
        0,
    )
    agent.learn(batch_of(agent, 16, 4, 1), 0.0)
    assert agent.gradient_steps == 4 and np.array_equal(agent.learner.target, agent.learner.parameters.flat)
    for k in range(2):
        target = agent.learner.target.copy()
        agent.learn(batch_of(agent, 8, 4, 1, k), 0.0)
        assert np.array_equal(agent.learner.target, target) == (k == 0)


def test_epsilon() -> None:
    """Random actions as often as they should be, uniform; from 1 to the last value, and none when greedy."""
    env, agent, _ = started("cartpole", {}, {"epsilon": 0.8, "epsilon_final": 0.2, "exploration_fraction": 0.5}, n=4)
    obs = np.repeat(env.reset(0)[:1], 20_000, 0)
    for progress, epsilon in ((0.0, 0.8), (0.25, 0.5), (0.5, 0.2), (1.0, 0.2)):
        agent.learn(batch_of(agent, 1, 4, 1), progress)
        assert agent.epsilon == pytest.approx(epsilon)
        best = agent.act(obs[:1], None, "greedy")[0][0, 0]
        share = (agent.act(obs, None, "sample")[0] != best).mean()
        assert share == pytest.approx(epsilon / 2, abs=0.02)
    assert (agent.act(obs, None, "greedy")[0] == best).all()


def test_noise_lasts_for_an_episode_and_differs_between_copies() -> None:
    env, agent, _ = started("cartpole", {}, {"noisy": True, "noise": 5.0}, n=32)
    obs = np.repeat(env.reset(0)[:1], 32, 0)
    carry = agent.initial(32)
    first, carry, _ = agent.act(obs, carry, "sample")
    again, carry, _ = agent.act(obs, carry, "sample")
    assert (first == again).all() and len(np.unique(first)) == 2 and agent.epsilon == 0
    noise = carry["drawn"].copy()
    carry["fresh"][3] = True  # as `restart` does
    _, carry, _ = agent.act(obs, carry, "sample")
    assert (carry["drawn"] != noise).any((1, 2)).nonzero()[0].tolist() == [3]
    greedy, carry, _ = agent.act(obs, agent.initial(32), "greedy")
    assert len(np.unique(greedy)) == 1 and carry["fresh"].all()


def test_a_head_acts_for_an_episode() -> None:
    env, agent, _ = started("cartpole", {}, {"ensemble_size": 6, "prior_scale": 20.0}, n=64)
    obs = np.repeat(env.reset(0)[:1], 64, 0)
    first, carry, _ = agent.act(obs, agent.initial(64), "sample")
    again, carry, _ = agent.act(obs, carry, "sample")
    assert (first == again).all() and set(carry["drawn"].ravel()) == set(range(6)) and agent.epsilon == 0
    by_head = [set(first[carry["drawn"] == head]) for head in range(6)]
    assert all(len(actions) == 1 for actions in by_head) and len(set.union(*by_head)) == 2


VARIANTS: dict[str, dict[str, Any]] = {
    "naive": {"replay": False, "target_update_interval": 0},
    "fused": {"learner": "fused", "n_step": 3, "double": True, "prioritised": True},
    "rainbow": {"n_step": 3, "double": True, "prioritised": True, "noisy": True, "quantiles": 8, "dueling": True},
    "torch": {"learner": "torch"},
    "ensemble_size": {"ensemble_size": 4},
    "cnn": {"network": "cnn", "channels": 2},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_goes_on_exactly(options: dict[str, Any]) -> None:
    """Five rollouts, or two, a state that is put into another agent, and three: the same bits."""
    options = {
        "learning_starts": 64,
        "batch_size": 8,
        "buffer_size": 150,
        "num_steps": 8,
        "target_update_interval": 5,
        **options,
    }
    world, n = ("maze", 4) if options.get("network") == "cnn" else ("cartpole", 4)

    def run(agent: Any, collector: Collector, first: int, last: int) -> None:
        for k in range(first, last):
            agent.learn(collector.rollout(8), k / 5)

    env, agent, collector = started(world, {}, options, n)
    run(agent, collector, 0, 5)
    assert agent.gradient_steps == 24
    other_env, other, other_collector = started(world, {}, options, n)
    run(other, other_collector, 0, 2)
    twin: Any = make_agent("dqn", options, other_env, 99)
    twin.load_state_dict({name: array.copy() for name, array in other.state_dict().items()})
    other_collector.agent = twin
    run(twin, other_collector, 2, 5)
    for (name, a), b in zip(agent.state_dict().items(), twin.state_dict().values(), strict=True):
        assert a.tobytes() == b.tobytes(), name
    env.close()
    other_env.close()


def test_bytes_stay_bytes() -> None:
    _, agent, collector = started("maze", {}, {"learning_starts": 0, "batch_size": 8})
    assert agent.replay.obs.dtype == np.uint8
    assert np.isfinite(agent.learn(collector.rollout(16), 0.0)["loss"])


def test_faults_are_named() -> None:
    env = make("navigation", {}, num_envs=2)
    with pytest.raises(ValueError, match="agent dqn: it cannot act in Box"):
        make_agent("dqn", {}, env, 0)
    env = make("cartpole", {}, num_envs=4)
    for options, match in (
        ({"learner": "fused", "dueling": True}, "dueling is torch's"),
        ({"learner": "fused", "hidden": (300,)}, "hidden widths"),
        ({"prioritised": True, "replay": False}, "needs replay"),
        ({"ensemble_size": 4, "noisy": True}, "ensemble_size goes without"),
        ({"network": "cnn"}, "a cnn needs"),
    ):
        with pytest.raises(ValueError, match=match):
            make_agent("dqn", options, env, 0)
    with pytest.raises(ValueError, match="target_update_interval"):
        agent_config("dqn", {"target_update_intervl": 3})
    _, agent, collector = started("cartpole", {}, {"buffer_size": 60})
    with pytest.raises(ValueError, match=r"raise agent.buffer_size to 68"):
        agent.learn(collector.rollout(16), 0.0)
    _, agent, collector = started("cartpole", {}, {"learning_starts": 0})
    batch = collector.rollout(16)
    batch.reward[3] = np.nan
    with pytest.raises(NonFinite, match=r"gradient of .* lower agent.learning_rate"):
        for _ in range(20):
            agent.learn(batch, 0.0)


@pytest.mark.parametrize("learner", ["fused", "torch"])
def test_it_learns(learner: str) -> None:
    """To match a cue among 16 numbers that mean nothing: 1/2 without learning, 1 with."""
    options = {
        "learner": learner,
        "n_step": 3,
        "exploration_fraction": 0.6,
        "update_every": 8,
        "hidden": (32,),
        "target_update_interval": 20,
    }
    env, agent, collector = started("distractors", {}, options, n=16)
    for k in range(60):
        agent.learn(collector.rollout(agent.num_steps), k / 60)
    env.close()
    assert run_episodes(agent, "distractors", {}, 200, 3, lines=False).returns.mean() > 0.95
