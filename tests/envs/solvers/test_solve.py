"""The exact solvers against hand-computed chains, slow independent solvers and the numbers of the literature."""

from __future__ import annotations

import functools
import itertools
import json
import math
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.registry import make_world
from gumdrop.envs.solvers import bayes, mdp
from gumdrop.envs.solvers import yardstick as yardstick_module
from gumdrop.envs.world import Model
from gumdrop.store.arrays import Array

Outcome = tuple[float, int, float, bool]  # probability, next state, reward, terminated


def build(outcomes: dict[int, dict[int, list[Outcome]]], start: int = 0) -> Model:
    """A Model from nested dictionaries in the form of Gymnasium's `env.unwrapped.P`."""
    width = max(len(row) for actions in outcomes.values() for row in actions.values())
    shape = (len(outcomes), len(outcomes[0]), width)
    next_state, probability = np.zeros(shape, np.int64), np.zeros(shape)
    reward, terminated = np.zeros(shape), np.zeros(shape, np.bool_)
    for s, actions in outcomes.items():
        for a, row in actions.items():
            for k, (p, to, r, end) in enumerate(row):
                next_state[s, a, k], probability[s, a, k], reward[s, a, k], terminated[s, a, k] = to, p, r, end
    return Model(next_state, probability, reward, terminated, start, {"s": np.arange(shape[0])})


def random_model(rng: np.random.Generator, states: int = 6, actions: int = 3, outcomes: int = 4) -> Model:
    shape = (states, actions, outcomes)
    p = rng.dirichlet(np.ones(outcomes), shape[:2])
    p[:, 0, 1] += p[:, 0, 0]
    p[:, 0, 0] = 0  # padding in the middle of a row
    terminated = rng.random(shape) < 0.2
    fields = {"s": np.arange(states)}
    return Model(rng.integers(states, size=shape), p, rng.normal(size=shape), terminated, 0, fields)


def slow_value(model: Model, s: int, horizon: int, choose: Callable[[list[float]], float]) -> float:
    """The definition, by recursion: the expected return from `s` with `horizon` steps left."""

    @functools.cache
    def value(s: int, left: int) -> float:
        if left == 0:
            return 0.0
        q = []
        for a in range(model.next_state.shape[1]):
            total = 0.0
            for k in range(model.next_state.shape[2]):
                after = 0.0 if model.terminated[s, a, k] else value(int(model.next_state[s, a, k]), left - 1)
                total += float(model.probability[s, a, k]) * (float(model.reward[s, a, k]) + after)
            q.append(total)
        return choose(q)

    return value(s, horizon)


# State 0: "go" moves on with 1/2, "grab" ends with 0.4. State 1: "go" ends with 1, "grab" with 0.4. State 2 only waits.
CHAIN = build(
    {
        0: {0: [(0.5, 1, 0.0, False), (0.5, 0, 0.0, False)], 1: [(1.0, 0, 0.4, True)]},
        1: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 0.4, True)]},
        2: {0: [(1.0, 2, 0.0, False)], 1: [(1.0, 2, 0.0, False)]},
    }
)


def test_chain_by_hand() -> None:
    solution = solve.finite_horizon(CHAIN, 3)
    np.testing.assert_allclose(solution.value, np.array([[0.85, 1, 0], [0.7, 1, 0], [0.4, 1, 0], [0, 0, 0]]), atol=1e-15)
    np.testing.assert_array_equal(solution.policy[:, :2], [[0, 0], [0, 0], [1, 0]])
    np.testing.assert_allclose(solve.evaluate_policy(CHAIN, None, 1), [0.2, 0.7, 0])
    np.testing.assert_allclose(solve.evaluate_policy(CHAIN, None, 2), [0.425, 0.7, 0])
    np.testing.assert_allclose(solve.evaluate_policy(CHAIN), [0.5, 0.7, 0])
    always_go, always_grab = np.array([0, 0, 0]), np.array([1, 1, 1])
    np.testing.assert_allclose(solve.evaluate_policy(CHAIN, always_go, 2), [0.5, 1, 0])
    np.testing.assert_allclose(solve.evaluate_policy(CHAIN, always_grab, 2), [0.4, 0.4, 0])
    np.testing.assert_allclose(solve.evaluate_policy(CHAIN, np.array([always_go, always_grab]), 2), [0.4, 1, 0])
    # gamma 1/2: going is worth v = 1/2 * 1/2 + 1/2 * 1/2 * v = 1/3, grabbing 0.4
    for solution in (solve.value_iteration(CHAIN, 0.5, 1e-12), solve.policy_iteration(CHAIN, 0.5)):
        np.testing.assert_allclose(solution.value, [0.4, 1, 0], atol=1e-12)
        assert solution.policy[:2].tolist() == [1, 0]
    for solution in (solve.value_iteration(CHAIN, 1.0, 1e-12), solve.policy_iteration(CHAIN, 1.0)):
        np.testing.assert_allclose(solution.value, [1, 1, 0], atol=1e-12)
        assert solution.policy[:2].tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_against_recursion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    solve.check_model(model)
    states = len(model.next_state)
    optimum = solve.finite_horizon(model, 7)
    for left in (0, 1, 4, 7):
        best = [slow_value(model, s, left, max) for s in range(states)]
        mean = [slow_value(model, s, left, lambda q: sum(q) / len(q)) for s in range(states)]
        np.testing.assert_allclose(optimum.value[7 - left], best, atol=1e-12)
        np.testing.assert_allclose(solve.evaluate_policy(model, None, left), mean, atol=1e-12)
    np.testing.assert_allclose(solve.evaluate_policy(model, optimum.policy, 7), optimum.value[0], atol=1e-12)
    share = rng.dirichlet(np.ones(3), states)
    weighted = [slow_value(model, s, 1, lambda q: float(np.dot(q, share[s]))) for s in range(states)]  # noqa: B023
    np.testing.assert_allclose(solve.evaluate_policy(model, share, 1), weighted, atol=1e-12)
    each_step = np.repeat(share[None], 5, axis=0)
    np.testing.assert_allclose(solve.evaluate_policy(model, each_step, 5), solve.evaluate_policy(model, share, 5), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 1.0])
def test_without_horizon(seed: int, gamma: float) -> None:
    """Every step ends with 0.2 or more, so that gamma 1 has one optimum too: that of a long horizon."""
    model = random_model(np.random.default_rng(seed))
    model.probability[:] *= 0.8
    model.probability[:, :, 3] += 0.2
    model.terminated[:, :, 3] = True
    exact = solve.policy_iteration(model, gamma)
    np.testing.assert_allclose(solve.evaluate_policy(model, exact.policy, None, gamma), exact.value, atol=1e-9)
    np.testing.assert_allclose(solve.value_iteration(model, gamma, 1e-9).value, exact.value, atol=1e-9)
    if gamma == 1.0:
        np.testing.assert_allclose(solve.finite_horizon(model, 500).value[0], exact.value, atol=1e-9)
        np.testing.assert_allclose(solve.evaluate_policy(model), solve.evaluate_policy(model, None, 500), atol=1e-9)


def test_tolerance_is_of_the_value_not_of_the_change() -> None:
    loop = build({0: {0: [(1.0, 0, 1.0, False)]}})
    assert abs(solve.value_iteration(loop, 0.99, 0.5).value[0] - 100) <= 0.5
    assert abs(solve.value_iteration(loop, 0.99, 1e-6).value[0] - 100) <= 1e-6
    with pytest.raises(ValueError, match="cannot reach tol 1e-30"):
        solve.value_iteration(build({0: {0: [(1.0, 0, 0.1, False)]}}), 0.999, 1e-30)


def test_undiscounted_traps() -> None:
    wait_or_win = build({0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 0, 1.0, True)]}})
    for solution in (solve.value_iteration(wait_or_win), solve.policy_iteration(wait_or_win)):
        assert solution.value[0] == 1 and solution.policy[0] == 1, "waiting ties with winning, but never wins"
    assert solve.finite_horizon(wait_or_win, 9).policy[:, 0].tolist() == [1] * 9, "no dawdling either"
    wait_or_pay = build({0: {0: [(1.0, 0, -1.0, True)], 1: [(1.0, 0, 0.0, False)]}})
    assert solve.value_iteration(wait_or_pay).value[0] == 0
    # The same with a bill that comes after 40 free steps: what 32 sweeps from zero cannot see.
    corridor = {s: {0: [(1.0, s + 1, 0.0, False)], 1: [(1.0, s + 1, 0.0, False)]} for s in range(1, 41)}
    bill = {0: [(1.0, 41, -1.0, True)], 1: [(1.0, 41, -1.0, True)]}
    late = build({0: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 0, 0.0, False)]}, **corridor, 41: bill})
    for solution in (solve.value_iteration(late), solve.policy_iteration(late)):
        assert solution.value[0] == 0 and solution.policy[0] == 1
    never_go = np.array([[0.0, 1.0]] * 42)  # probability 0 is no way out
    assert solve.evaluate_policy(late, never_go).tolist() == [0.0] + [-1.0] * 41
    pay_twice = build({0: {0: [(1.0, 1, -1.0, False)]}, 1: {0: [(1.0, 1, -2.0, True)]}})
    assert solve.value_iteration(pay_twice).value.tolist() == [-3, -2]
    slow = build({0: {0: [(0.999, 0, -0.01, False), (0.001, 0, 1.0, True)]}})  # 999 steps of -0.01 on average
    assert solve.value_iteration(slow).value[0] == pytest.approx(1 - 9.99)
    win_for_ever = build({0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 0, 5.0, True)]}})
    to_and_fro = build({0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 0, -1.0, False)]}})
    for endless in (win_for_ever, to_and_fro):
        with pytest.raises(ValueError, match=r"^value iteration with gamma 1 does not converge .* gamma < 1"):
            solve.value_iteration(endless)
        with pytest.raises(ValueError, match="no finite return"):
            solve.policy_iteration(endless)
    with pytest.raises(ValueError, match=r"gamma is 1.5"):
        solve.value_iteration(CHAIN, 1.5)
    with pytest.raises(ValueError, match=r"tol is 0"):
        solve.value_iteration(CHAIN, 0.5, 0)


def frozen_lake(name: str) -> Model:
    env: Any = gymnasium.make("FrozenLake-v1", map_name=name, is_slippery=True).unwrapped
    return build({int(s): {int(a): list(row) for a, row in acts.items()} for s, acts in env.P.items()})


def test_frozen_lake() -> None:
    small, large = frozen_lake("4x4"), frozen_lake("8x8")
    assert round(float(solve.finite_horizon(small, 100).value[0, 0]), 4) == 0.7442
    assert round(float(solve.finite_horizon(large, 200).value[0, 0]), 4) == 0.9132
    # without a time limit: 14 / 17, and certain success
    assert solve.value_iteration(small).value[0] == pytest.approx(14 / 17, abs=1e-9)
    assert solve.value_iteration(large).value[0] == pytest.approx(1.0, abs=1e-9)
    assert solve.policy_iteration(small).value[0] == pytest.approx(14 / 17, abs=1e-9)


def room(size: int, goals: list[int], elsewhere: float = 0.0) -> Model:
    """An empty room for each goal: state goal number * cells + cell. 5 actions; reward 1 on every step at the goal."""
    cells = size * size
    y, x = np.divmod(np.arange(cells), size)
    moves = [(0, -1), (1, 0), (0, 1), (-1, 0), (0, 0)]
    to = np.stack([np.clip(y + dy, 0, size - 1) * size + np.clip(x + dx, 0, size - 1) for dy, dx in moves], axis=1)
    next_state = np.concatenate([g * cells + to for g in range(len(goals))])[:, :, None]
    reward = np.concatenate([np.where(to == goal, 1.0, elsewhere) for goal in goals])[:, :, None]
    fields = {"cell": np.tile(np.arange(cells), len(goals))}
    return Model(next_state, np.ones(next_state.shape), reward, np.zeros(next_state.shape, np.bool_), 0, fields)


def search_policy(size: int, start: int, path: list[int], goals: list[int]) -> Array:
    """(T, S): go along `path` (actions) until the reward is found, then stay on it."""
    cells, dy, dx = size * size, (0, 1, 0, -1, 0), (-1, 0, 1, 0, 0)
    policy = np.full((len(path), len(goals) * cells), 4)
    y, x = divmod(start, size)
    for t, a in enumerate(path):
        for g, goal in enumerate(goals):
            if t == 0 or goal != y * size + x:
                policy[t, g * cells + y * size + x] = a
        y, x = y + dy[a], x + dx[a]
        assert 0 <= y < size and 0 <= x < size
    return policy


SNAKE = [4] + ([2] * 9 + [1] + [0] * 9 + [1]) * 5  # waits once: the goal may be under the start
SPIRAL = [2, 1, 0, 0, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("size", "start", "horizon", "known", "search", "random", "path"),
    [(10, 0, 100, 91.99, 50.5, 1.0, SNAKE[:100]), (9, 40, 20, 16.54, 2.59, 0.25, SPIRAL)],
)
def test_dark_room(size: int, start: int, horizon: int, known: float, search: float, random: float, path: list[int]) -> None:
    cells = size * size
    goals = list(range(cells))
    model = room(size, goals)
    starts = np.arange(cells) * cells + start  # the goal is drawn from all cells, the start among them
    assert solve.finite_horizon(model, horizon).value[0, starts].mean() == pytest.approx(known, abs=0.005)
    assert solve.evaluate_policy(model, None, horizon)[starts].mean() == pytest.approx(random, abs=0.005)
    found = solve.evaluate_policy(model, search_policy(size, start, path, goals), horizon)[starts].mean()
    assert found == pytest.approx(search, abs=0.005)
    # Nobody does better: a step looks at one new cell at most, and what is found at step t pays horizon - t + 1 times.
    bound = sum(horizon - t + 1 for t in range(1, min(horizon, cells) + 1)) / cells
    assert found == pytest.approx(bound, abs=1e-12)


@pytest.mark.parametrize("horizon", [3, 6, 12])
def test_searching_a_small_room_is_solved_by_that_bound(horizon: int) -> None:
    """The belief model of a 3 x 3 Dark Room: (cell, cells known to be empty), and last the state `found`."""
    known = room(3, [0]).next_state[:9, :, 0]
    table: dict[int, dict[int, list[Outcome]]] = {}
    for cell, empty in itertools.product(range(9), range(512)):
        rows: dict[int, list[Outcome]] = {}
        for a in range(5):
            to = int(known[cell, a])
            left = 9 - empty.bit_count()
            if empty >> to & 1 or left == 0:
                rows[a] = [(1.0, to * 512 + empty, 0.0, False)]
            else:
                rows[a] = [(1 / left, 9 * 512, 1.0, False), (1 - 1 / left, to * 512 + (empty | 1 << to), 0.0, False)]
        table[cell * 512 + empty] = rows
    table[9 * 512] = {a: [(1.0, 9 * 512, 1.0, False)] for a in range(5)}  # stay on it
    optimum = solve.finite_horizon(build(table), horizon).value[0, 0]
    assert optimum == pytest.approx(sum(horizon - t + 1 for t in range(1, min(horizon, 9) + 1)) / 9)


def test_varibad_grid() -> None:
    """5 x 5, start in a corner, no goal in the four cells there; -0.1 off the goal, 1 on it; 15 steps."""
    goals = [c for c in range(25) if c not in (0, 1, 5, 6)]
    optimum = solve.finite_horizon(room(5, goals, elsewhere=-0.1), 15).value[0, np.arange(len(goals)) * 25]
    assert optimum.mean() == pytest.approx(11.07, abs=0.005)


def test_random_mdps() -> None:
    """10 states, 5 actions, 10 steps; mean rewards N(1, 1), transitions Dirichlet(1). 3,000 of them as one model."""
    tasks, rng = 3000, np.random.default_rng(0)
    shape = (tasks, 10, 5, 10)
    probability = rng.dirichlet(np.ones(10), shape[:3])
    reward = np.broadcast_to(rng.normal(1, 1, (*shape[:3], 1)), shape)
    to = np.broadcast_to(np.arange(10) + 10 * np.arange(tasks)[:, None, None, None], shape)
    flat = (tasks * 10, 5, 10)
    model = Model(to.reshape(flat), probability.reshape(flat), reward.reshape(flat), np.zeros(flat, np.bool_), 0, {})
    best = solve.finite_horizon(model, 10).value[0, ::10]
    lazy = solve.evaluate_policy(model, None, 10)[::10]
    error = np.sqrt([best.var() / tasks, lazy.var() / tasks])
    assert abs(best.mean() - 21.79) < 0.05 + 3 * error[0] < 0.2
    assert abs(lazy.mean() - 10.01) < 0.01 + 3 * error[1] < 0.2


def enumerate_policies(arms: int, pulls: int) -> Fraction:
    """The best of ALL deterministic policies: one arm for each sequence of outcomes so far; exact fractions."""

    def marginal(arm_and_outcome: tuple[tuple[int, int], ...]) -> Fraction:  # integral of p^s (1 - p)^f for each arm
        chance = Fraction(1)
        for arm in range(arms):
            s = sum(o for a, o in arm_and_outcome if a == arm)
            f = sum(1 - o for a, o in arm_and_outcome if a == arm)
            chance *= Fraction(math.factorial(s) * math.factorial(f), math.factorial(s + f + 1))
        return chance

    nodes = [h for t in range(pulls) for h in itertools.product((0, 1), repeat=t)]
    best = Fraction(0)
    for choice in itertools.product(range(arms), repeat=len(nodes)):
        arm = dict(zip(nodes, choice, strict=True))
        total = Fraction(0)
        for outcome in itertools.product((0, 1), repeat=pulls):
            story = tuple((arm[outcome[:t]], outcome[t]) for t in range(pulls))
            total += sum(outcome) * marginal(story)
        best = max(best, total)
    return best


@pytest.mark.parametrize(("arms", "pulls"), [(1, 3), (2, 1), (2, 2), (2, 3), (3, 3)])
def test_bayes_bandit_against_all_policies(arms: int, pulls: int) -> None:
    assert bayes.bayes_bandit(arms, pulls).value == pytest.approx(float(enumerate_policies(arms, pulls)), abs=1e-12)


def ordered_counts(arms: int, horizon: int) -> float:
    """The Bayes bandit over ordered counts: no multisets, no keys."""

    @functools.cache
    def value(counts: tuple[tuple[int, int], ...], left: int) -> float:
        best = 0.0
        for k, (s, f) in enumerate(counts):
            win, lose = list(counts), list(counts)
            win[k], lose[k] = (s + 1, f), (s, f + 1)
            p = (s + 1) / (s + f + 2)
            future = 0.0 if left == 1 else p * value(tuple(win), left - 1) + (1 - p) * value(tuple(lose), left - 1)
            best = max(best, p + future)
        return best

    return value(((0, 0),) * arms, horizon)


@pytest.mark.parametrize(("arms", "horizon"), [(2, 9), (3, 7), (5, 5)])
def test_bayes_bandit_against_ordered_counts(arms: int, horizon: int) -> None:
    assert bayes.bayes_bandit(arms, horizon).value == pytest.approx(ordered_counts(arms, horizon), abs=1e-12)


def test_bayes_bandit_yardsticks() -> None:
    assert round(bayes.bayes_bandit(5, 10).value, 3) == 6.660
    assert round(bayes.bayes_bandit(10, 10).value, 3) == 6.714
    assert bayes.bandit_oracle(5) == pytest.approx(5 / 6)
    for arms, horizon in itertools.product((10, 11, 50), (15, 17)):  # keys of different bases do not collide
        assert bayes.bayes_bandit(arms, horizon).value < horizon * bayes.bandit_oracle(arms)


def test_bayes_agent_gets_what_the_table_says() -> None:
    tasks, horizon, rng = 20_000, 10, np.random.default_rng(1)
    for arms in (2, 10):
        agent = bayes.bayes_bandit(arms, horizon)
        mean, counts, got = rng.random((tasks, arms)), np.zeros((tasks, arms, 2), np.int64), np.zeros(tasks)
        for _ in range(horizon):
            arm = agent.act(counts)
            pulled = mean[np.arange(tasks), arm]
            got += pulled
            counts[np.arange(tasks), arm, np.where(rng.random(tasks) < pulled, 0, 1)] += 1
        assert abs(got.mean() - agent.value) < 4 * got.std() / math.sqrt(tasks)
        with pytest.raises(ValueError, match="less than the horizon"):
            agent.act(counts)
    with pytest.raises(ValueError, match=r"it must be \(N, 10, 2\)"):
        agent.act(counts[:, :3])


def test_bayes_bandit_refuses_what_is_too_large() -> None:
    longest = bayes.bandit_horizon(10)
    assert longest > 15
    with pytest.raises(ValueError, match=rf"^10 arms and 100 pulls .* at most {longest} pulls of 10 arms$"):
        bayes.bayes_bandit(10, 100)
    assert bayes.bandit_horizon(3, limit=10) == 3  # 1 + 2 + 6 states; the next level has 14
    with pytest.raises(ValueError, match="at least 1 arm"):
        bayes.bayes_bandit(0, 5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("next_state", lambda a: a + 2, "next_state is outside 0..2"),
        ("next_state", lambda a: a[0], "must be .states, actions, outcomes."),
        ("next_state", lambda a: a.astype(float), "is float64"),
        ("probability", lambda a: a * 0.5, "do not sum to 1"),
        ("probability", lambda a: a * np.nan, "outside 0..1"),
        ("probability", lambda a: a + np.array([-1.5, 1.5]), "outside 0..1"),
        ("probability", lambda a: a[:, :1], "make them equal"),
        ("reward", lambda a: a + np.inf, "reward is not finite at .state, action, outcome. .0, 0, 0."),
        ("terminated", lambda a: a.astype(int), "is int64"),
        ("start", lambda a: 3, "start is 3"),
        ("fields", lambda a: {"s": np.arange(2)}, r"fields\['s'\] has 2 rows"),
    ],
)
def test_check_model(name: str, change: Callable[[Any], Any], message: str) -> None:
    solve.check_model(CHAIN)
    with pytest.raises(ValueError, match=message) as error:
        solve.check_model(CHAIN._replace(**{name: change(getattr(CHAIN, name))}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("policy", [np.zeros(2, int), np.full(3, 2), np.ones((3, 2)), np.zeros((4, 3), int)])
def test_bad_policies(policy: Array) -> None:
    with pytest.raises(ValueError, match="^policy "):
        solve.evaluate_policy(CHAIN, policy, 2)


def test_yardstick_solves_equal_models_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    both = yardstick_module._both

    def counted(model: Model, horizon: int) -> tuple[Array, Array]:
        calls.append(horizon)
        return both(model, horizon)

    monkeypatch.setattr(yardstick_module, "_both", counted)
    fixed = Engine(make_world("maze", {"fresh": False, "size": 7, "slip": 0.2}), num_envs=1000, threads=1)
    lines = solve.yardstick(fixed.world, fixed.state)
    assert lines is not None and len(calls) == 1
    model = fixed.world.model(fixed.state, 17)
    assert model is not None
    np.testing.assert_allclose(lines.optimal, solve.finite_horizon(model, 100).value[0, model.start], atol=1e-12)
    np.testing.assert_allclose(lines.random, solve.evaluate_policy(model, None, 100)[model.start], atol=1e-12)
    open_room = Engine(make_world("maze", {"layout": "open", "size": 4}), num_envs=300, threads=1)
    assert solve.yardstick(open_room.world, open_room.state) is not None
    assert len(calls) == 1 + 4, "four goals; the start is looked up"


def test_yardstick_of_fresh_layouts() -> None:
    engine = Engine(make_world("candy", {"candies": 3, "time_limit": 8}), num_envs=6, seed=5, threads=1)
    lines = solve.yardstick(engine.world, engine.state)
    assert lines is not None and lines.meaning == "optimum of an agent that sees the whole state"
    for i in range(6):
        model = engine.world.model(engine.state, i)
        assert model is not None
        assert lines.optimal[i] == pytest.approx(slow_value(model, model.start, 8, max), abs=1e-12)
        assert lines.random[i] == pytest.approx(slow_value(model, model.start, 8, lambda q: sum(q) / len(q)), abs=1e-12)
    many = Engine(make_world("candy", {"agents": 2}), num_envs=2, threads=1)
    assert solve.yardstick(many.world, many.state) is None


def test_yardstick_without_time_limit() -> None:
    lake = Engine(make_world("maze", {"layout": "frozenlake4", "slip": 2 / 3, "time_limit": 0}), threads=1)
    lines = solve.yardstick(lake.world, lake.state)
    assert lines is not None and lines.optimal[0] == pytest.approx(14 / 17)
    frozen = frozen_lake("4x4")
    assert lines.random[0] == pytest.approx(solve.evaluate_policy(frozen, None, 5000)[0], abs=1e-9)


@pytest.mark.slow
def test_a_thousand_candy_layouts() -> None:
    engine = Engine(make_world("candy", {"time_limit": 20}), num_envs=1000, threads=1)
    start = time.perf_counter()
    assert solve.yardstick(engine.world, engine.state) is not None
    assert time.perf_counter() - start < 20  # about 3.5 s on one core


def test_index_of() -> None:
    engine = Engine(make_world("candy", {"candies": 4, "slip": 0.0}), num_envs=4, seed=2, threads=1)
    model = engine.world.model(engine.state, 1)
    assert model is not None and solve.index_of(model, engine.state._asdict(), 1) == model.start
    state, rng = model.start, np.random.default_rng(0)
    for _ in range(9):
        action = rng.integers(5, size=(4, 1))
        state = int(model.next_state[state, action[1, 0], 0])  # no slip: the first outcome is certain
        engine.step(action, autoreset=False)
        assert solve.index_of(model, engine.state._asdict(), 1) == state
    assert state != model.start
    with pytest.raises(ValueError, match="environment 0 is in no state of this model"):
        solve.index_of(model, engine.state._asdict(), 0)
    assert solve.StateIndex(model)(engine.state._asdict()).tolist() == [-1, state, -1, -1]


def test_solve_world() -> None:
    layout = {"layout": "S..G/.#H.", "slip": 0.0, "time_limit": 5, "step_reward": -0.1}
    found = json.loads(json.dumps(solve.solve_world("maze", layout, seed=3)))
    assert found["states"] == 7 and found["actions"] == 4 and found["horizon"] == 5 and found["id"] == "maze"
    assert found["optimal"] == pytest.approx(0.8) and found["random"] < found["optimal"]
    assert found["value"][0] == pytest.approx(0.8)
    assert found["text"].splitlines()[:3] == [
        "> > > G",
        "^ # H ^",
        "start: row 0, column 0; o: stay; optimal return from each cell:",
    ]
    assert found["text"].splitlines()[3].split() == ["0.8", "0.9", "1"]
    hurry = solve.solve_world("maze", {"layout": "S..G/.#H.", "time_limit": 2})["text"].splitlines()
    assert hurry[:2] == [". > > G", ". # H ^"], "two steps do not reach the goal from the left"
    candy = solve.solve_world("candy", {"candies": 3})
    assert candy["states"] == 36 * 8 and len(candy["text"].splitlines()) == 13
    forever = solve.solve_world("maze", {**layout, "time_limit": 0})
    assert forever["optimal"] == pytest.approx(0.8) and forever["horizon"] == 0


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("candy", {"agents": 2}, "would with agents=1"),
        ("candy", {"candies": 30}, "would with a smaller world"),
        ("CartPole-v1", {}, "external environment"),
        ("kandy", {}, "did you mean candy"),
        ("maze", {"time_limit": 0, "step_reward": 0.1}, "does not converge"),
    ],
)
def test_solve_world_says_what_would_help(id: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        solve.solve_world(id, options)
    assert "\n" not in str(error.value)


# --- discount, visits, shortest paths, other people's tables


def test_finite_horizon_with_discount() -> None:
    # CHAIN, gamma 1/2, two steps: grabbing is worth 0.4, going 1/2 * 1/2 * 1 + 1/2 * 1/2 * 0.4 = 0.35.
    solution = solve.finite_horizon(CHAIN, 2, 0.5)
    np.testing.assert_allclose(solution.value[0], [0.4, 1, 0], atol=1e-15)
    assert solution.policy[0, 0] == 1
    seen: list[tuple[int, int]] = []
    solve.finite_horizon(CHAIN, 3, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_occupancy_by_hand() -> None:
    # Always go, from state 0: there 1, 1/2, 1/4 times, in state 1 the step after: 0, 1/2, 1/4.
    go = np.array([0, 0, 0])
    np.testing.assert_allclose(solve.occupancy(CHAIN, go, 3), [[1.75, 0], [0.75, 0], [0, 0]])
    np.testing.assert_allclose(solve.occupancy(CHAIN, go), [[2, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(solve.occupancy(CHAIN, go, None, 0.5), [[4 / 3, 0], [1 / 3, 0], [0, 0]])
    half = solve.occupancy(CHAIN, None, 1, start=np.array([0.5, 0, 0.5]))
    np.testing.assert_allclose(half, [[0.25, 0.25], [0, 0], [0.25, 0.25]])
    with pytest.raises(ValueError, match="state 2 is visited for ever"):
        solve.occupancy(CHAIN, go, start=np.array([0.5, 0, 0.5]))
    with pytest.raises(ValueError, match="start must be 3 probabilities"):
        solve.occupancy(CHAIN, go, 1, start=np.ones(3))


@pytest.mark.parametrize("seed", range(4))
def test_occupancy_sums_to_length_and_return(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    policies = (None, rng.integers(3, size=6), rng.dirichlet(np.ones(3), 6))
    reward = (model.probability * model.reward).sum(2)
    clock = model._replace(reward=np.ones_like(model.reward))
    for policy, gamma, horizon in itertools.product(policies, (0.7, 1.0), (None, 5)):
        visits = solve.occupancy(model, policy, horizon, gamma)
        value = solve.evaluate_policy(model, policy, horizon, gamma)[0]
        length = solve.evaluate_policy(clock, policy, horizon, gamma)[0]
        assert float((visits * reward).sum()) == pytest.approx(value) and float(visits.sum()) == pytest.approx(length)
    timed = rng.integers(3, size=(5, 6))
    assert (solve.occupancy(model, timed, 5) * reward).sum() == pytest.approx(solve.evaluate_policy(model, timed, 5)[0])
    endless = model._replace(terminated=np.zeros_like(model.terminated))
    assert solve.occupancy(endless, None, None, 0.9).sum() == pytest.approx(10), "1 / (1 - gamma)"


@pytest.mark.parametrize("seed", range(3))
def test_linear_programming_duality(seed: int) -> None:
    """The optimal policy's visits solve the dual linear programme, and its optimum is the primal's: the value."""
    from scipy.optimize import linprog

    gamma, model = 0.9, random_model(np.random.default_rng(seed))
    best = solve.policy_iteration(model, gamma)
    states, actions = model.next_state.shape[:2]
    reward = (model.probability * model.reward).sum(2)
    flow = np.zeros((states, states * actions))  # out of s minus discounted into s
    for s, a in np.ndindex(states, actions):
        flow[s, s * actions + a] += 1
        for k in range(model.next_state.shape[2]):
            going = model.probability[s, a, k] * (not model.terminated[s, a, k])
            flow[model.next_state[s, a, k], s * actions + a] -= gamma * going
    first = np.eye(states)[0]
    dual = linprog(-reward.ravel(), A_eq=flow, b_eq=first, method="highs")
    assert -dual.fun == pytest.approx(best.value[0], abs=1e-8)
    primal = linprog(first, A_ub=-flow.T, b_ub=-reward.ravel(), bounds=(None, None), method="highs")
    assert primal.fun == pytest.approx(best.value[0], abs=1e-8)
    visits = solve.occupancy(model, best.policy, None, gamma)
    np.testing.assert_allclose(flow @ visits.ravel(), first, atol=1e-10)
    assert (visits * reward).sum() == pytest.approx(best.value[0])


def test_fewest_steps() -> None:
    lucky = solve.fewest_steps(CHAIN)
    assert lucky.tolist() == [1, 1, -1]
    won = CHAIN.terminated & (CHAIN.reward == 1)
    assert solve.fewest_steps(CHAIN, won).tolist() == [2, 1, -1]
    assert solve.fewest_steps(CHAIN, won, certain=True).tolist() == [-1, 1, -1], "going may stay in state 0 for ever"
    lake = frozen_lake("4x4")
    wins = lake.terminated & (lake.reward == 1)
    assert solve.fewest_steps(lake, wins)[0] == 6 and solve.fewest_steps(lake, wins, certain=True)[0] == -1
    with pytest.raises(ValueError, match="wanted is int64"):
        solve.fewest_steps(CHAIN, won.astype(int))
    maze = Engine(
        make_world("maze", {"size": 11, "step_reward": -1.0, "goal_reward": -1.0, "time_limit": 0}), seed=4, threads=1
    )
    model = maze.world.model(maze.state, 0)
    assert model is not None
    steps = solve.fewest_steps(model)
    np.testing.assert_array_equal(steps, solve.fewest_steps(model, certain=True))
    live = steps[model.start]
    assert live > 0 and solve.value_iteration(model).value[model.start] == pytest.approx(-live)


def dense_policy_iteration(table: Any, gamma: float) -> Array:
    """Independent of `gumdrop`: Howard's algorithm over Gymnasium's dictionary, with a dense linear system."""
    states, actions = len(table), len(table[0])
    move, reward = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s in range(states):
        for a in range(actions):
            for p, to, r, end in table[s][a]:
                reward[s, a] += p * r
                move[s, a, to] += 0.0 if end else p
    policy = np.zeros(states, int)
    while True:
        rows = np.arange(states)
        value = np.linalg.solve(np.eye(states) - gamma * move[rows, policy], reward[rows, policy])
        q = reward + gamma * move @ value
        better = q.max(1) > q[rows, policy] + 1e-11
        if not better.any():
            return value
        policy = np.where(better, q.argmax(1), policy)


TOYS = [("FrozenLake-v1", {"map_name": "4x4"}), ("FrozenLake-v1", {"map_name": "8x8"}), ("CliffWalking", {}), ("Taxi", {})]


def newest(name: str) -> str:
    """Gymnasium's newest version of an environment."""
    known = [spec for spec in gymnasium.registry.values() if spec.name == name.removesuffix("-v1")]
    return max(known, key=lambda spec: spec.version or 0).id


@pytest.mark.parametrize(("name", "options"), TOYS)
@pytest.mark.parametrize("gamma", [0.9, 0.99])
def test_gymnasiums_own_tables(name: str, options: dict[str, Any], gamma: float) -> None:
    table: Any = gymnasium.make(newest(name), **options).unwrapped
    model = solve.from_table(table.P)
    exact = dense_policy_iteration(table.P, gamma)
    np.testing.assert_allclose(solve.value_iteration(model, gamma, 1e-9).value, exact, atol=1e-8, rtol=0)
    np.testing.assert_allclose(solve.policy_iteration(model, gamma).value, exact, atol=1e-8, rtol=0)


def test_gymnasiums_environments_through_solve_world() -> None:
    lake = solve.solve_world("FrozenLake-v1")
    assert lake["optimal"] == pytest.approx(0.7442, abs=5e-5) and lake["horizon"] == 100
    cliff = solve.solve_world(newest("CliffWalking"), gamma=0.5)
    assert cliff["optimal"] == pytest.approx(-sum(0.5**t for t in range(13))), "13 steps along the cliff"
    taxi = solve.solve_world(newest("Taxi"))
    assert taxi["optimal"] == pytest.approx(7.93, abs=0.005) and taxi["states"] == 500
    assert taxi["text"].splitlines()[0].split() == ["s", "value", "action"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "numbered"),
        ({1: {0: [(1.0, 0, 0.0, True)]}}, "numbered 0..0"),
        ({0: {1: [(1.0, 0, 0.0, True)]}}, "every state needs 0..0"),
        ({0: {0: []}}, "without actions or outcomes"),
        ({0: {0: [(0.9, 0, 0.0, True)]}}, "do not sum to 1"),
        ({0: {0: [(1.0, 7, 0.0, True)]}}, "outside 0..0"),
    ],
)
def test_bad_tables(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve.from_table(table)


def test_grid_rows_of_known_goals() -> None:
    """Dark Room and VariBAD's grid for an agent that knows the goal, averaged over goals: distances by hand, summed."""

    def known(side: int, start: tuple[int, int], steps: int, goals: Callable[[int, int], bool], miss: float) -> list[float]:
        i = np.arange(side * side)
        y, x = i // side, i % side
        moves = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
        to = np.stack([np.clip(y + b, 0, side - 1) * side + np.clip(x + a, 0, side - 1) for b, a in moves], 1)[:, :, None]
        at, one = start[0] * side + start[1], np.ones(to.shape)
        rows = []
        for goal in i:
            if goals(*divmod(int(goal), side)):
                model = Model(to, one, np.where(to == goal, 1.0, miss), np.zeros(to.shape, np.bool_), at, {})
                rows.append((solve.finite_horizon(model, steps).value[0, at], solve.evaluate_policy(model, None, steps)[at]))
        return [float(v) for v in np.mean(rows, axis=0)]

    assert known(10, (0, 0), 100, lambda y, x: True, 0.0) == pytest.approx([91.99, 1.0], abs=1e-9)
    best, lazy = known(9, (4, 4), 20, lambda y, x: True, 0.0)
    assert round(best, 2) == 16.54 and round(lazy, 2) == 0.25
    best, _ = known(5, (0, 0), 15, lambda y, x: y > 1 or x > 1, -0.1)
    assert round(best, 2) == 11.07


def test_solve_world_with_discount() -> None:
    found = solve.solve_world("maze", {"layout": "S..G/.#H.", "slip": 0.0, "time_limit": 2}, gamma=0.5)
    assert found["optimal"] == pytest.approx(0.25) and found["horizon"] == 0 and found["gamma"] == 0.5
    assert "discounted by 0.5 a step, without a time limit" in found["meaning"]
    with pytest.raises(ValueError, match="gamma is 1.5"):
        solve.solve_world("maze", gamma=1.5)
    with pytest.raises(ValueError, match="no transition model that could be discounted"):
        solve.solve_world("bandit", gamma=0.9)


def test_the_table_says_who_is_solved(variant: tuple[str, dict[str, Any]]) -> None:
    """`World.solver`, which `env list` prints, is empty exactly where there is no yardstick."""
    world = make_world(*variant)
    engine = Engine(world, 2, seed=3)
    assert bool(world.solver) == (solve.yardstick(world, engine.state) is not None)


@pytest.mark.parametrize("horizon", [1, 7, 400])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_first_step_alone_is_the_first_row(horizon: int, gamma: float) -> None:
    world = make_world("frozenlake")
    model = world.model(Engine(world).state, 0)
    assert model is not None
    whole = solve.finite_horizon(model, horizon, gamma)
    solution, q = mdp.first_step(model, horizon, gamma)
    np.testing.assert_array_equal(solution.value, whole.value[0])
    np.testing.assert_array_equal(solution.policy, whole.policy[0])
    np.testing.assert_array_equal(q.max(0), whole.value[0])


def test_a_limit_that_never_binds_costs_nothing() -> None:
    """Two thousand million steps: the values settle long before, and no table of that length is kept."""
    long = solve.solve_world("frozenlake", {"time_limit": 2_000_000_000})
    assert abs(long["optimal"] - 14 / 17) < 1e-9  # the known value without a limit
    assert long["horizon"] == 2_000_000_000 and 0 < long["random"] < 0.02


def test_a_discount_keeps_the_end_that_the_rules_make() -> None:
    """Ten rounds against tit-for-tat, discounted: cooperate nine times, defect last, summed by hand."""
    by_hand = sum(3 * 0.9**t for t in range(9)) + 5 * 0.9**9
    assert abs(solve.solve_world("ipd-tit-for-tat", gamma=0.9)["optimal"] - by_hand) < 1e-9


def test_a_huge_restless_bandit_is_refused_at_once() -> None:
    assert bayes.restless_states(1000, 1_000_000) == 1 + 3**1000  # the second term is enough: no million of them
    assert bayes.restless_states(2, 3) == 1 + 9 + 25


def test_epsilon_optimum_by_hand() -> None:
    """One state: action 0 pays 1 and ends, action 1 stays."""
    to, p, r, end = np.zeros((1, 2, 1), np.int64), np.ones((1, 2, 1)), np.array([[[1.0], [0.0]]]), np.array([[[True], [False]]])
    model = Model(to, p, r, end, 0, {"x": np.zeros(1)})
    # V = 1/2 + 1/2 (1/2 + 1/2 gamma V)
    assert mdp.epsilon_optimum(model, 0.5).value[0] == pytest.approx(1.0, abs=1e-12)
    assert mdp.epsilon_optimum(model, 0.5, gamma=0.9).value[0] == pytest.approx(0.75 / 0.775, abs=1e-12)
    assert mdp.epsilon_optimum(model, 0.5, horizon=2).value[:, 0].tolist() == [0.9375, 0.75, 0.0]
    assert mdp.epsilon_optimum(model, 0.5, horizon=2).policy.tolist() == [[0], [0]]
    assert mdp.soft(np.array([1, 0]), 0.2, 4).tolist() == pytest.approx(
        np.array([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])
    )
    with pytest.raises(ValueError, match="epsilon is 2"):
        mdp.epsilon_optimum(model, 2.0)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_epsilon_optimum_is_a_fixed_point(gamma: float) -> None:
    world = make_world("cliffwalking")
    from gumdrop.envs.engine.engine import Engine

    model = world.model(Engine(world, threads=1).state, 0)
    assert model is not None
    flat = mdp.flatten(model)
    found = mdp.epsilon_optimum(model, 0.1, gamma=gamma)
    q = mdp.backup(flat, found.value, gamma)
    np.testing.assert_allclose(found.value, 0.9 * q.max(0) + 0.1 * q.mean(0), atol=1e-9)
    exact = mdp.evaluate_policy(model, mdp.soft(found.policy, 0.1, 4), None, gamma)
    np.testing.assert_allclose(found.value, exact, atol=1e-9)
    zero = mdp.epsilon_optimum(model, 0.0, gamma=gamma).value[model.start]
    assert zero == pytest.approx(mdp.value_iteration(model, gamma).value[model.start])
