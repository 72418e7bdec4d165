"""CartPole against Gymnasium's own, step by step."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest

from gumdrop.envs.make import make
from gumdrop.envs.worlds.cartpole import cosine, sine


def test_sine_and_cosine() -> None:
    for x in np.linspace(-0.5, 0.5, 1001).tolist():
        assert sine(x) == pytest.approx(math.sin(x), abs=2e-16) and cosine(x) == pytest.approx(math.cos(x), abs=3e-16)


def test_steps_equal_gymnasiums() -> None:
    ours: Any = make("cartpole", num_envs=32, seed=4)
    theirs: Any = [gymnasium.make("CartPole-v1").unwrapped for _ in range(32)]
    for env in theirs:
        env.reset(seed=0)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(300):
        action = rng.integers(2, size=(32, 1))
        for env, state in zip(theirs, ours.state.x, strict=True):
            env.state, env.steps_beyond_terminated = np.array(state), None
        step = ours.step(action, autoreset=False)
        for i, env in enumerate(theirs):
            obs, reward, terminated, _, _ = env.step(int(action[i, 0]))
            np.testing.assert_allclose(ours.state.x[i], env.state, rtol=1e-13, atol=1e-15)
            np.testing.assert_allclose(step.obs[i, 0], obs, rtol=1e-6)
            assert step.reward[i, 0] == reward and step.terminated[i] == terminated
        ends += int(step.terminated.sum())
        if step.terminated.any():
            fresh = make("cartpole", num_envs=32, seed=ends)
            ours.state.x[step.terminated] = fresh.state.x[step.terminated]  # type: ignore[attr-defined]
    assert ends > 100


def test_spaces_limit_and_starts_are_gymnasiums() -> None:
    ours: Any = make("cartpole", num_envs=4000)
    theirs = gymnasium.make("CartPole-v1")
    space: Any = theirs.observation_space
    assert ours.action_space == theirs.action_space and ours.observation_space.dtype == space.dtype
    for mine, bound in ((ours.observation_space.low, space.low), (ours.observation_space.high, space.high)):
        np.testing.assert_array_equal(mine[[0, 2]], bound[[0, 2]])  # speeds have bounds here, none there
    assert theirs.spec is not None and ours.world.horizon == theirs.spec.max_episode_steps == 500
    assert abs(ours.state.x).max() <= 0.05 and abs(ours.state.x.std(0) - 0.1 / math.sqrt(12)).max() < 1e-3


def test_a_known_controller_holds_the_pole_to_the_end() -> None:
    """Full marks are 500: the push is the sign of a weighted sum of the state."""
    env: Any = make("cartpole", num_envs=500, seed=1)
    total = np.zeros(500)
    for _ in range(500):
        step = env.step((env.obs[:, 0] @ np.array([0.1, 0.3, 3.0, 1.0]) > 0)[:, None].astype(int), autoreset=False)
        total += step.reward[:, 0]
        assert not step.terminated.any()
    assert (total == 500).all() and step.truncated.all()
