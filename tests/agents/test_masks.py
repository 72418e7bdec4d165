"""Agents in worlds with action masks: illegal actions are never taken, resuming is exact, agents that cannot are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.agents.registry import agents, make_agent
from gumdrop.core_ml.maths.returns import next_step
from gumdrop.envs.batch import BatchEnv
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world
from gumdrop.envs.world import rule
from gumdrop.envs.worlds.bandit import Bandit
from gumdrop.experiments.run.collect.make import collector_of
from gumdrop.experiments.run.episodes import run_episodes

MAZE = {"mask_walls": True, "size": 7, "time_limit": 30}
GRU = {"name": "gru", "hidden": 16}
ACTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "q-learning": ("q-learning", {"epsilon": 0.5}),
    "q-learning softmax": ("q-learning", {"exploration": "softmax", "temperature": 1.0}),
    "double-q": ("double-q", {}),
    "sarsa": ("sarsa", {"epsilon": 0.5}),
    "sarsa traces": ("sarsa", {"trace_lambda": 0.9}),
    "expected-sarsa": ("expected-sarsa", {"exploration": "softmax", "temperature": 1.0}),
    "monte-carlo": ("monte-carlo", {}),
    "dyna-q": ("dyna-q", {"planning": 2}),
    "prioritised-sweeping": ("prioritised-sweeping", {"planning": 2}),
    "td-prediction": ("td-prediction", {}),
    "dqn fused": ("dqn", {"learner": "fused", "learning_starts": 100, "update_every": 256}),
    "dqn torch": ("dqn", {"learner": "torch", "learning_starts": 100, "update_every": 256, "double": True}),
    "dqn ensemble": ("dqn", {"ensemble_size": 4, "learning_starts": 100, "update_every": 256}),
    "ppo fused": ("ppo", {"learner": "fused", "hidden": [32]}),
    "ppo torch": ("ppo", {"learner": "torch", "hidden": [32]}),
    "ppo gru": ("ppo", {"belief": GRU, "hidden": []}),
    "ppo gru torch": ("ppo", {"belief": GRU, "hidden": [], "learner": "torch"}),
    "policy-gradient": ("policy-gradient", {"hidden": [32]}),
    "policy-gradient episodes": ("policy-gradient", {"hidden": [32], "advantage": "discounted"}),
    "guarded": ("guarded", {"policy": "q-learning", "fallback": "random"}),
}
BANDITS = (
    "random", "epsilon-first", "epsilon-greedy", "exp3", "gp-ucb", "kl-ucb", "thompson", "ucb1", "ppo", "q-learning",
)  # fmt: skip
CONTEXTUAL = ("lin-ucb", "linear-thompson", "neural-linear")


class Sleeping(Bandit):
    """A bandit of which two arms sleep at each pull: others at the next."""

    @rule
    def legal(s: Any, i: int, k: int, c: Any, out: Any) -> None:
        for a in range(out.shape[0]):
            out[a] = (a + s.pulls[i]) % 3 != 0


def sleeping(n: int, id: str = "bandit") -> Engine:
    options: dict[str, Any] = {"arms": 5, "pulls": 40}
    world = make_world(id, options)
    return Engine(Sleeping(world.config), n, seed=1, id="sleeping")


def legal_share(agent: Any, env: BatchEnv, updates: int, steps: int) -> tuple[int, int]:
    """How many of the actions in so many updates, and of greedy ones after them, were illegal, and of how many."""
    collector = collector_of(env, agent)
    collector.begin(env.obs)
    illegal = total = 0
    for update in range(updates):
        rollout = collector.rollout(steps)
        assert rollout.mask is not None
        legal = np.take_along_axis(rollout.mask, rollout.action[..., None], -1)
        illegal, total = illegal + int((~legal).sum()), total + legal.size
        metrics = agent.learn(rollout, update / updates)
        assert all(np.isfinite(x) for x in metrics.values()), metrics
    for mode in ("greedy", "sample"):
        mask = env.action_mask()
        assert mask is not None
        action, _, _ = agent.act(env.obs, agent.initial(env.num_envs), mode, mask)
        illegal += int((~np.take_along_axis(mask, action[..., None], -1)).sum())
    return illegal, total


@pytest.mark.parametrize("name", ACTORS)
def test_no_illegal_action_in_a_hundred_thousand_steps(name: str) -> None:
    env = make("maze", MAZE, num_envs=512, seed=1)
    agent = make_agent(*ACTORS[name], env, 0)
    illegal, total = legal_share(agent, env, 25, 8)
    assert illegal == 0 and total == 102_400


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTORS)
def test_no_illegal_action_in_a_million_steps(name: str) -> None:
    env = make("maze", MAZE, num_envs=4096, seed=2)
    agent = make_agent(*ACTORS[name], env, 0)
    illegal, total = legal_share(agent, env, 31, 8)
    assert illegal == 0 and total >= 10**6


@pytest.mark.parametrize("name", [*BANDITS, *CONTEXTUAL])
def test_bandit_agents_pull_arms_that_are_awake(name: str) -> None:
    kinds = dict.fromkeys(CONTEXTUAL, "bandit-contextual") | {"gp-ucb": "bandit-line"}
    env = sleeping(256, kinds.get(name, "bandit"))
    agent = make_agent(name, {}, env, 0)
    illegal, total = legal_share(agent, env, 4, 40)
    assert illegal == 0 and total == 4 * 40 * 256


def test_exp3_weighs_by_the_probability_among_legal_arms() -> None:
    env = sleeping(4)
    agent = make_agent("exp3", {}, env, 0)
    _, carry, _ = agent.act(env.obs, agent.initial(4), "sample", env.action_mask())
    mask = env.action_mask()
    assert carry is not None and mask is not None
    np.testing.assert_allclose(carry["chance"], 1 / mask[:, 0].sum(1))  # nothing is known: all legal arms alike


def test_agents_that_cannot_use_masks_are_refused_in_one_line() -> None:
    env = make("maze", MAZE, num_envs=2)
    refused = [name for name, cls in agents().items() if not getattr(cls, "masks", False)]
    assert {"dreamer", "value-iteration", "policy-iteration", "gittins", "bayes-optimal", "sb3-ppo"} <= set(refused)
    for name in refused:
        with pytest.raises(ValueError, match=f"agent {name}: it cannot use the action masks of maze: take ppo, dqn"):
            make_agent(name, {}, env, 0)
    env = make("maze", MAZE | {"fresh": False, "observe": "coordinates"}, num_envs=2)
    with pytest.raises(ValueError, match="agent guarded: its policy, value-iteration, cannot use"):
        make_agent("guarded", {"policy": "value-iteration", "fallback": "random"}, env, 0)


@pytest.mark.parametrize("name", ["q-learning", "double-q", "dqn torch", "ppo fused", "ppo gru", "policy-gradient episodes"])
def test_masks_resume_exactly(name: str) -> None:
    """Six updates in one go, and three, a checkpoint, and three in another agent and environment: the same bits."""
    ends = []
    for stop in (6, 3):
        env = make("maze", MAZE, num_envs=16, seed=3)
        agent = make_agent(*ACTORS[name], env, 0)
        collector = collector_of(env, agent)
        collector.begin(env.obs)
        for update in range(6):
            if update == stop:
                other = make("maze", MAZE, num_envs=16, seed=9)
                other.set_state(env.get_state())
                new = make_agent(*ACTORS[name], other, 7)
                new.load_state_dict({key: array.copy() for key, array in agent.state_dict().items()})
                kept = {key: array.copy() for key, array in collector.get_state().items()}
                agent, env, collector = new, other, collector_of(other, new)
                collector.begin(env.obs)
                collector.set_state(kept)
            agent.learn(collector.rollout(8), update / 6)
        ends.append(agent.state_dict())
    assert ends[0].keys() == ends[1].keys()
    for key, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][key], err_msg=key)


def test_a_replay_holds_the_masks_of_next_observations() -> None:
    env = make("maze", MAZE | {"time_limit": 3}, num_envs=8, seed=4)
    agent: Any = make_agent("dqn", {"buffer_size": 100, "learning_starts": 10**6}, env, 0)
    collector = collector_of(env, agent)
    collector.begin(env.obs)
    rollout = collector.rollout(7)
    masks = rollout.mask, rollout.last_mask, rollout.final_mask
    assert all(part is not None for part in masks) and rollout.truncated.any()
    agent.learn(rollout, 0.0)
    wanted = next_step(masks[0], masks[1], rollout.truncated, masks[2])  # type: ignore[arg-type]
    assert (agent.replay.next_mask[:56] == wanted.reshape(56, 4)).all()


def test_an_action_that_was_never_legal_has_no_value_in_a_table() -> None:
    env = make("maze", MAZE | {"fresh": False, "observe": "coordinates"}, num_envs=64, seed=5)
    agent: Any = make_agent("q-learning", {"initial_value": 2.0}, env, 0)
    legal_share(agent, env, 10, 8)
    mask, values = env.action_mask(), agent.values(env.obs)
    assert mask is not None and (np.isneginf(values) == ~mask[:, 0]).all()
    assert np.isfinite(values[mask[:, 0]]).all()


def test_evaluation_plays_legal_actions_and_random_is_the_yardsticks_random() -> None:
    found = run_episodes("random", "frozenlake", {"mask_walls": True}, 2000, 0)
    assert found.random is not None
    assert abs(found.returns.mean() - found.random.mean()) < 4 * found.returns.std() / 2000**0.5
