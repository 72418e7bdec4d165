"""Corridors for diagnosis: what is seen, when it counts, what is paid, and the exact optimum of each dial."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gumdrop.envs.draw import render
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.registry import make_world
from gumdrop.envs.solvers import mdp
from gumdrop.store.arrays import Array


def engine(options: dict[str, Any], n: int = 1, id: str = "corridor", seed: int = 0) -> Engine:
    return Engine(make_world(id, options), num_envs=n, seed=seed, threads=1)


def play(env: Engine, choose: Any, steps: int) -> tuple[Array, Array, Array]:
    """Observations (T, N, D) before each step, rewards (T, N), ends (T, N); choose(t, obs (N, D)) -> actions (N,)."""
    obs, reward, end = [], [], []
    for t in range(steps):
        obs.append(env.obs[:, 0].copy())
        step = env.step(np.asarray(choose(t, obs[-1]))[:, None])
        reward.append(step.reward[:, 0].copy())
        end.append(step.terminated.copy())
    return np.array(obs), np.array(reward), np.array(end)


def test_memory_by_hand() -> None:
    env = engine({"length": 3}, 64)
    cue = env.obs[:, 0, :2].argmax(1)
    assert set(cue) == {0, 1}
    obs, reward, end = play(env, lambda t, seen: cue if t == 3 else 1 - cue, 4)
    for n, c in enumerate(cue):
        assert obs[:, n].tolist() == [
            [1 - c, c, 0, 0, 0, 0],
            [0, 0, 0, 0, 0.25, 0],
            [0, 0, 0, 0, 0.5, 0],
            [0, 0, 0, 0, 0.75, 1],
        ]
    assert (reward[:3] == 0).all() and (reward[3] == 1).all() and end.tolist() == [[t == 3] * 64 for t in range(4)]


def test_without_memory_half_the_cues_are_missed() -> None:
    """After the first step both cues look the same, so a policy of what is seen gets 1/2."""
    env, n = engine({"length": 5}, 20_000, "memory-length"), 20_000
    obs, reward, _ = play(env, lambda t, seen: np.zeros(n, np.int64), 6)
    assert (np.ptp(obs[1:], axis=1) == 0).all()
    assert abs(reward[5].mean() - 0.5) < 4 * 0.5 / np.sqrt(n) and set(reward[5]) == {0, 1}


def test_delay_by_hand() -> None:
    n = 20_000
    env = engine({"task": "delay", "length": 4, "distraction": 3.0}, n)
    cue = env.obs[:, 0, :2].argmax(1)
    rng = np.random.default_rng(0)
    first = rng.integers(2, size=n)
    obs, reward, end = play(env, lambda t, seen: first if t == 0 else rng.integers(2, size=n), 5)
    one = np.eye(2)
    for t in range(5):
        assert (obs[t, :, :2] == one[cue]).all() and (obs[t, :, 5] == (t == 0)).all()
        assert (obs[t, :, 2:4] == (one[first] if t else 0)).all()
        np.testing.assert_allclose(obs[t, :, 4], t / 5, rtol=1e-6)
    assert (reward[0] == 0).all() and (reward[4] == (first == cue)).all() and end[4].all() and not end[:4].any()
    assert (np.abs(reward[1:4]) == 3).all()
    signs = np.array([4, 2, 1]) @ (reward[1:4] > 0)  # three tosses of a fair coin, whatever was chosen
    assert stats.chisquare(np.bincount(signs[first == cue], minlength=8)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(signs[first != cue], minlength=8)).pvalue > 1e-3


def test_match_by_hand() -> None:
    n = 5_000
    env = engine({"task": "match", "length": 3, "choices": 3}, n)
    obs, reward, end = play(env, lambda t, seen: seen[:, :3].argmax(1) if t != 1 else (seen[:, :3].argmax(1) + 1) % 3, 3)
    assert (reward == [[1], [0], [1]]).all() and end.tolist() == [[False] * n, [False] * n, [True] * n]
    assert (obs[:, :, 7] == 1).all() and (obs[:, :, :3].sum(2) == 1).all() and (obs[:, :, 3:6] == 0).all()
    cues = obs[:, :, :3].argmax(2)
    assert stats.chisquare(np.bincount(np.array([9, 3, 1]) @ cues, minlength=27)).pvalue > 1e-3


def test_the_scale_multiplies_and_nothing_else() -> None:
    for task in ("memory", "delay", "match"):
        one, many = (engine({"task": task, "length": 4, "reward_scale": scale}, 200) for scale in (1.0, 250.0))
        a, b = (play(env, lambda t, seen: np.full(200, t % 2), 12) for env in (one, many))
        assert (a[0] == b[0]).all() and (250 * a[1] == b[1]).all() and a[1].any()


def test_noise_is_normal_and_not_scaled() -> None:
    n = 20_000
    env = engine({"task": "match", "reward_noise": 0.5, "reward_scale": 10.0}, n)
    obs, reward, _ = play(env, lambda t, seen: np.zeros(n, np.int64), 2)
    noise = reward - 10.0 * (obs[:, :, 0] == 1)
    for row in noise:
        assert stats.kstest(row / 0.5, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise)[0, 1]) < 4 / np.sqrt(n)


def test_distractors_are_fresh_uniform_numbers_that_mean_nothing() -> None:
    n = 20_000
    plain, env = engine({"task": "match"}, n), engine({"task": "match", "distractors": 5}, n)
    assert env.observation_space.shape == (11,) and plain.observation_space.shape == (6,)
    obs, reward, _ = play(env, lambda t, seen: np.zeros(n, np.int64), 3)
    numbers = obs[:, :, 6:].transpose(0, 2, 1).reshape(15, n)  # (step and column, copy)
    assert all(stats.kstest(row, "uniform").pvalue > 1e-4 for row in numbers)
    together = np.corrcoef(np.vstack((numbers, obs[:, :, 0], reward)))[:15]
    assert np.abs(together - np.eye(15, 21)).max() < 4.5 / np.sqrt(n)


def test_long_and_wide_observations_stay_in_the_space() -> None:
    env = engine({"task": "delay", "length": 3000, "choices": 64, "distractors": 100})
    assert env.observation_space.contains(env.obs[0, 0])
    for _ in range(3001):
        step = env.step(np.array([[63]]))
    assert step.terminated[0] and env.observation_space.contains(step.final_obs[0, 0])
    assert step.final_obs[0, 0, 128] == 1 and env.world.model(env.state, 0) is None and env.yardstick() is not None


OPTIONS: list[dict[str, Any]] = [
    {"task": task, "length": length, "choices": choices, "reward_scale": scale, "time_limit": limit}
    for task, length, choices, (scale, limit) in itertools.product(
        ("memory", "delay", "match"), (1, 4), (2, 3), ((1.0, 0), (5.0, 3))
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_the_closed_form_is_what_the_model_solves_to(options: dict[str, Any]) -> None:
    env = engine(options, 4)
    line = env.yardstick()
    assert line is not None
    for i in range(4):
        model = env.world.model(env.state, i)
        assert model is not None
        mdp.check_model(model)
        best = mdp.finite_horizon(model, env.world.horizon).value[0, model.start]
        random = mdp.evaluate_policy(model, None, env.world.horizon)[model.start]
        np.testing.assert_allclose((line.optimal[i], line.random[i]), (best, random), atol=1e-12)


@pytest.mark.parametrize(
    ("id", "random", "optimal"),
    [
        ("corridor", 0.5, 1),
        ("memory-length", 0.5, 1),
        ("delayed-credit", 0.5, 1),
        ("reward-scale", 500, 1000),
        ("reward-noise", 5, 10),
        ("distractors", 5, 10),
    ],
)
def test_presets_have_these_lines(id: str, random: float, optimal: float) -> None:
    """And an agent that does what the cue says, and keeps it in mind, walks on the upper one."""
    n = 4_000
    env = engine({}, n, id)
    line = env.yardstick()
    assert line is not None and (line.random == random).all() and (line.optimal == optimal).all()
    assert env.world.solver == "closed form"
    cue = env.obs[:, 0, :2].argmax(1)
    answer = (lambda t, seen: seen[:, :2].argmax(1)) if env.world.config.task == "match" else (lambda t, seen: cue)
    _, reward, end = play(env, answer, env.world.horizon)
    total = reward.sum(0)
    assert end[-1].all() and abs(total.mean() - optimal) <= 4 * total.std() / np.sqrt(n)


def test_the_model_knows_where_a_copy_stands() -> None:
    env = engine({"task": "delay", "length": 3}, 8)
    env.step(np.ones((8, 1), np.int64))
    model = env.world.model(env.state, 5)
    assert model is not None and solve.index_of(model, env.state._asdict(), 5) == model.start


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "maze"}, "memory"),
        ({"length": 0}, "length"),
        ({"choices": 1}, "choices"),
        ({"reward_scale": 0.0}, "reward_scale"),
        ({"noise": 1.0}, "reward_noise"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_world("corridor", options)


def test_a_strangers_state_is_refused() -> None:
    env = engine({}, 2)
    for name, value in (("time", 12), ("time", -1), ("cue", 2), ("choice", 3)):
        state = env.get_state()
        state[f"state.{name}"][1] = value
        with pytest.raises(ValueError, match="time, cue or choice"):
            env.set_state(state)


def test_a_long_corridor_scrolls_through_its_picture() -> None:
    env = engine({"length": 100})
    scene = env.scene(0)
    assert scene is not None and scene.cells.shape == (2, 24)
    assert [(e.row, e.column, e.kind) for e in scene.entities] == [(1, 0, "agent"), (0, 0, "candy")]
    for t in range(100):
        scene = env.scene(0)
        assert scene is not None and all(0 <= e.column < 24 for e in scene.entities), t
        env.step(np.zeros((1, 1), np.int64))
    scene = env.scene(0)
    assert scene is not None and [(e.column, e.kind) for e in scene.entities] == [(23, "agent"), (23, "goal")]
    assert "cue" in render.text(env, 0)
