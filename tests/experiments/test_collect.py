"""Rollouts: acting and stepping in one go is, to the bit, what the two in turns give; and what the statistics count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.agents.protocol import RolloutBuffer
from gumdrop.agents.registry import make_agent
from gumdrop.envs.batch import Episodes
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.make import make
from gumdrop.experiments.run.collect.host import Collector
from gumdrop.experiments.run.collect.make import fit

STEPS = 12
CASES: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "bytes, cut episodes": ("maze", {"time_limit": 7}, 50, {}),
    "tiles of odd sizes, two threads": ("maze", {"time_limit": 50}, 1100, {"hidden": (16,)}),
    "two agents": ("candy", {"agents": 2, "time_limit": 9}, 60, {}),
    "continuous, normalised": ("point-maze", {"time_limit": 6}, 70, {"normalise_observation": True}),
    "floats, ended episodes": ("cartpole", {}, 40, {"shared_trunk": False, "activation": "relu"}),
    "one step an episode": ("bandit", {"time_limit": 1}, 300, {}),
    "one environment": ("candy", {"time_limit": 5}, 1, {}),
}


def played(case: tuple[str, dict[str, Any], int, dict[str, Any]], threads: int, explore: bool) -> list[Any]:
    """Everything that two rollouts with learning between them hand out, and what is left in agent and world."""
    id, options, num_envs, ppo = case
    env = make(id, options, num_envs=num_envs, seed=3, threads=1)
    agent = make_agent("ppo", {"num_steps": STEPS, "learner": "fused", "update_epochs": 1, **ppo}, env, 1, threads)
    collector = Collector(env, agent)
    if not explore:
        collector._native = None
    collector.begin(env.reset(5))
    found: list[Any] = []
    for update in range(2):
        batch = collector.rollout(STEPS)
        found += [np.array(array) for array in (*batch[:7], *batch.extras.values())]
        found += [agent.learn(batch, update / 2), collector.pop_statistics()]
    return [*found, *collector.get_state().values(), *agent.state_dict().values(), *env.get_state().values()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_exploring_gives_the_bits_of_acting_and_stepping_in_turns(case: Any) -> None:
    expected = played(case, 1, False)
    for threads in (1, 2):
        found = played(case, threads, True)
        assert len(found) == len(expected)
        for n, (a, b) in enumerate(zip(found, expected, strict=True)):
            if isinstance(a, dict):
                assert a == b, n
            else:
                assert a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes(), n


def test_who_cannot_explore_acts_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is compiled for what will not happen."""
    monkeypatch.setattr(Engine, "native", lambda self: pytest.fail("native() compiles"))
    five = make("candy", {"agents": 5}, num_envs=6, seed=0)  # 5 agents do not fill a tile of 96 rows
    for env, options in ((five, {}), (make("candy", num_envs=6, seed=0), {"learner": "torch"})):
        collector = Collector(env, make_agent("ppo", options, env, 0))
        collector.begin(env.obs)
        assert collector.rollout(4).reward.shape == (4, 6, env.num_agents)


def test_a_buffer_of_another_shape_is_refused_before_anything_is_written() -> None:
    env = make("candy", num_envs=6, seed=0)
    agent: Any = make_agent("ppo", {}, env, 0)
    world = env.native()  # type: ignore[attr-defined]
    shapes = [(obs := env.obs.shape), (6, 1), (6, 1), (6,), (6,), obs, (6, 1), (6,)]
    dtypes = [np.uint8, np.int64, np.float32, np.bool_, np.bool_, np.uint8, np.float64, np.int64]
    good = RolloutBuffer(*(np.zeros((3, *shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)))
    for bad in (
        good._replace(action=np.zeros((2, 6, 1), np.int64)), good._replace(action=np.zeros((3, 6, 1), np.int32)),
        good._replace(final_obs=good.obs[:2]), good._replace(ended_length=np.zeros((3, 6), np.int32)),
    ):  # fmt: skip
        before = env.get_state()
        with pytest.raises(ValueError, match="the buffer of"):
            agent.collect_natively(world, bad, None)
        assert all((before[name] == array).all() for name, array in env.get_state().items())
    assert agent.collect_natively(world, good, None) is not None


@pytest.mark.parametrize("seed", range(20))
def test_cohorts_are_counted_as_the_slow_version_counts_them(seed: int) -> None:
    """The slow version looks at one step after the other, and at one episode after the other."""
    rng = np.random.default_rng(seed)
    num_envs, steps = int(rng.integers(1, 6)), 60
    env = make("candy", num_envs=num_envs)
    collector = Collector(env, make_agent("random", {}, env, 0))
    ended = rng.random((steps, num_envs)) < rng.uniform(0.05, 0.9)
    returns, lengths = rng.normal(size=(steps, num_envs, 1)), rng.integers(1, 9, (steps, num_envs))

    cohorts: list[list[float]] = []
    fresh, counted = [True] * num_envs, {}
    for t in range(steps):
        for i in np.flatnonzero(ended[t]).tolist():
            if fresh[i] and i not in counted:
                counted[i] = (returns[t, i, 0], lengths[t, i])
            fresh[i] = True
        if len(counted) == num_envs:
            values = np.array([counted[i] for i in range(num_envs)])
            cohorts.append([values[:, 0].mean(), values[:, 0].std(), values[:, 1].mean()])
            counted, fresh = {}, ended[t].tolist()

    at = 0
    while at < steps:  # in rollouts of different lengths
        size = int(rng.integers(1, 20))
        t, env = np.nonzero(ended[at : at + size])
        collector._count(t, Episodes(env, returns[at + t, env], lengths[at + t, env]))
        at += size
    np.testing.assert_allclose(np.array(collector._cohorts).reshape(-1, 3), np.array(cohorts).reshape(-1, 3))
    state = collector.get_state()
    assert state["fresh"].tolist() == fresh and set(np.flatnonzero(state["counted"]).tolist()) == counted.keys()
    assert collector.pop_statistics()["episodes"] == ended.sum()


def test_what_an_agent_remembers_ends_with_the_episode_and_is_in_the_checkpoint() -> None:
    """A bandit agent's carry counts the pulls of the running episode, which the world counts as well."""

    def begun(seed: int) -> Collector:
        env = make("bandit", {"pulls": 7, "time_limit": 5}, num_envs=6, seed=seed)
        collector = Collector(env, make_agent("thompson", {}, env, seed))
        collector.begin(env.reset(seed))
        return collector

    one = begun(0)
    for _ in range(4):
        one.rollout(3)
        pulls, carry = one.env.state.pulls, one.carry  # type: ignore[attr-defined]
        assert carry is not None
        # The last pull is in the observation, not yet in the carry; a fresh episode has neither.
        assert (carry["pulls"].sum(1) == np.maximum(pulls - 1, 0)).all()
    two = begun(1)
    two.env.set_state(one.env.get_state())
    two.agent.load_state_dict(one.agent.state_dict())
    two.begin(two.env.obs)
    two.set_state({name: array.copy() for name, array in one.get_state().items()})
    first, second = one.rollout(9), two.rollout(9)
    assert (first.action == second.action).all() and (first.reward == second.reward).all()
    assert all((array == two.get_state()[name]).all() for name, array in one.get_state().items())


def test_practice_goes_through_its_share_of_a_run() -> None:
    """As many rounds as told, from where the environment stands; progress runs evenly over the lesson's part of the run."""
    env = make("corridor", {}, num_envs=3, seed=0)
    agent: Any = make_agent("random", {}, env, 0)
    met: list[tuple[int, float]] = []
    agent.learn = lambda batch, progress: met.append((batch.reward.size, progress)) or {"lessons": 1.0}
    said: list[dict[str, float]] = []
    fit(agent, env, 2, said.append)
    fit(agent, env, 4, progress=(0.5, 0.9))
    assert [size for size, _ in met] == 6 * [3 * agent.num_steps]
    assert [progress for _, progress in met] == pytest.approx([0.0, 0.5, 0.5, 0.6, 0.7, 0.8])
    assert len(said) == 2 and all(row["lessons"] == 1.0 and "episodes" in row for row in said)
