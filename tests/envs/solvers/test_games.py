"""Matrix games and zero-sum stochastic games against solutions by hand and against best responses."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from gumdrop.envs.examine import solution as solve
from gumdrop.envs.solvers import games, mdp
from gumdrop.envs.world import Game, World, Yardstick
from gumdrop.store.arrays import Array


def test_matrix_games_by_hand() -> None:
    rps = games.zero_sum(np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]))
    assert rps.value == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose([rps.row, rps.column], 1 / 3, atol=1e-9)
    pennies = games.zero_sum(np.array([[1, -1], [-1, 1]]))
    assert pennies.value == pytest.approx(0, abs=1e-12) and pennies.row == pytest.approx([0.5, 0.5])
    # Equalising 3 x + ... by hand: both mix (1/2, 1/3, 1/6) for [[0, 1, 1], ...] scaled as diag games do:
    # diag(1, 2, 3): p_i proportional to 1 / d_i, value 1 / (1 + 1/2 + 1/3) = 6/11.
    diagonal = games.zero_sum(np.diag([1.0, 2.0, 3.0]))
    assert diagonal.value == pytest.approx(6 / 11)
    np.testing.assert_allclose([diagonal.row, diagonal.column], [[6 / 11, 3 / 11, 2 / 11]] * 2, atol=1e-9)
    # [[2, 5], [4, 1], [0, 0]]: the third row is dominated; p (2, 5) + (1 - p) (4, 1) is level at p = 1/2, value 3.
    wide = games.zero_sum(np.array([[2, 5], [4, 1], [0, 0]]))
    assert wide.value == pytest.approx(3)
    np.testing.assert_allclose(wide.row, [0.5, 0.5, 0], atol=1e-9)
    np.testing.assert_allclose(wide.column, [2 / 3, 1 / 3], atol=1e-9)
    saddle = games.zero_sum(np.array([[4, 2], [1, 0]]))
    assert saddle.value == 2 and saddle.row.tolist() == [1, 0] and saddle.column.tolist() == [0, 1]
    assert games.zero_sum(np.full((3, 2), -7.0)).value == -7
    assert games.zero_sum(1e9 * np.array([[1, -1], [-1, 1.0]]) + 5).value == pytest.approx(5, abs=1e-5)


def support_enumeration(payoff: Array) -> float:
    """Slow and independent: try all pairs of supports of equal size, solve the indifference equations, keep what is stable."""
    a, b = payoff.shape
    for size in range(1, min(a, b) + 1):
        for rows in itertools.combinations(range(a), size):
            for columns in itertools.combinations(range(b), size):
                part = payoff[np.ix_(rows, columns)]
                system = np.block([[part, -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
                dual = np.block([[part.T, -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
                if min(abs(np.linalg.det(system)), abs(np.linalg.det(dual))) < 1e-9:
                    continue
                right = np.append(np.zeros(size), 1)
                y, x = np.linalg.solve(system, right), np.linalg.solve(dual, right)
                if min(y[:-1].min(), x[:-1].min()) < -1e-9:
                    continue
                value = float(y[-1])
                if (payoff[:, columns] @ y[:-1]).max() <= value + 1e-9 and (x[:-1] @ payoff[rows, :]).min() >= value - 1e-9:
                    return value
    raise AssertionError("no equilibrium found")


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 5), (5, 3), (4, 4), (1, 3)])
def test_batches_against_support_enumeration(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    payoff = rng.normal(size=(60, *shape))
    value, row, column = games.zero_sum_batch(payoff)
    assert row.shape == (60, shape[0]) and column.shape == (60, shape[1])
    for table, v, x, y in zip(payoff, value, row, column, strict=True):
        assert v == pytest.approx(support_enumeration(table), abs=1e-9)
        assert x.min() >= 0 and y.min() >= 0 and x.sum() == pytest.approx(1) and y.sum() == pytest.approx(1)
        assert (x @ table).min() == pytest.approx(v, abs=1e-9) and (table @ y).max() == pytest.approx(v, abs=1e-9)
        assert games.zero_sum(table).value == pytest.approx(v, abs=1e-8)


def test_batches_with_ties() -> None:
    """Whole numbers in a narrow range: degenerate tableaux, where careless pivots go round in circles."""
    payoff = np.random.default_rng(1).integers(-1, 2, (2000, 4, 4)).astype(float)
    value, row, column = games.zero_sum_batch(payoff)
    np.testing.assert_allclose(np.einsum("ma,mab->mb", row, payoff).min(1), value, atol=1e-9)
    np.testing.assert_allclose(np.einsum("mab,mb->ma", payoff, column).max(1), value, atol=1e-9)
    assert games.zero_sum_batch(np.zeros((0, 2, 2)))[0].shape == (0,)


def test_simplex_needs_no_rescue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "_linear_program", lambda table: pytest.fail("a batch fell back to one game at a time"))
    payoff = np.random.default_rng(2).integers(-3, 4, (3000, 5, 5)).astype(float)
    value, row, _ = games.zero_sum_batch(payoff)
    np.testing.assert_allclose(np.einsum("ma,mab->mb", row, payoff).min(1), value, atol=1e-9)


@pytest.mark.parametrize(
    ("payoff", "message"), [([1, 2], "must be"), ([[1.0, math.nan]], r"\(0, 1\) is nan"), (np.zeros((0, 2)), "none of them 0")]
)
def test_bad_payoffs(payoff: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        games.zero_sum(payoff)
    assert "\n" not in str(error.value)


def game_of(next_state: Any, reward: Any, terminated: Any) -> Game:
    """A deterministic zero-sum game from tables (S, A, B)."""
    shape = (*np.shape(next_state), 1)
    pay = np.reshape(np.asarray(reward, float), shape)
    return Game(
        np.reshape(next_state, shape), np.ones(shape), np.stack((pay, -pay), -1), np.reshape(terminated, shape), 0,
        {"s": np.arange(shape[0])},
    )  # fmt: skip


# In state 0 both name a side: (left, left) pays 1 and ends, (right, right) pays 3 and ends, else on to state 1.
# State 1 pays 1 whatever is done and ends. With t >= 2 steps left the game in 0 is [[1, 1], [1, 3]]: 1 from the corner.
# State 2: matching pennies for 2, again and again.
TINY = game_of(
    [[[0, 1], [1, 0]], [[1, 1], [1, 1]], [[2, 2], [2, 2]]],
    [[[1, 0], [0, 3]], [[1, 1], [1, 1]], [[2, -2], [-2, 2]]],
    [[[True, False], [False, True]], [[True, True], [True, True]], [[False, False], [False, False]]],
)


def test_stochastic_game_by_hand() -> None:
    games.check_game(TINY)
    solution = games.shapley(TINY, horizon=2)
    # One step left: [[1, 0], [0, 3]] has value 3/4 and strategies (3/4, 1/4).
    np.testing.assert_allclose(solution.value, [[1, 1, 0], [0.75, 1, 0], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(solution.row[1, 0], [0.75, 0.25], atol=1e-12)
    np.testing.assert_allclose(solution.column[1, 0], [0.75, 0.25], atol=1e-12)
    np.testing.assert_allclose(solution.row[0, 2], [0.5, 0.5], atol=1e-12)
    # gamma 1/2: [[1, 1/2], [1/2, 3]] has no saddle point: value (3 - 1/4) / (1 + 3 - 1) = 11/12, p = (5/6, 1/6).
    forever = games.shapley(TINY, gamma=0.5, tol=1e-12)
    np.testing.assert_allclose(forever.value, [11 / 12, 1, 0], atol=1e-11)
    np.testing.assert_allclose(forever.row[0], [5 / 6, 1 / 6], atol=1e-9)
    quick = games.minimax(TINY, 2)
    np.testing.assert_allclose(quick.value, solution.value[0], atol=1e-12)
    np.testing.assert_allclose(quick.row, solution.row[0], atol=1e-12)
    # At random: 1 with 1/4, 3 with 1/4, and 1 a step later with 1/2.
    assert quick.random[0] == pytest.approx(1.5)


def shapley_snow() -> Game:
    """A stochastic game with a square root in it (after Shapley 1953): v = val [[1 + gamma v, 0], [0, 1]]."""
    return game_of([[[0, 0], [0, 0]]], [[[1, 0], [0, 1]]], [[[False, True], [True, True]]])


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
def test_irrational_value(gamma: float) -> None:
    # v = (1 + g v) / (2 + g v), so g v^2 + (2 - g) v - 1 = 0.
    v = (-(2 - gamma) + math.sqrt((2 - gamma) ** 2 + 4 * gamma)) / (2 * gamma)
    solution = games.shapley(shapley_snow(), gamma=gamma, tol=1e-12)
    assert solution.value[0] == pytest.approx(v, abs=1e-11)
    assert solution.row[0, 0] == pytest.approx(1 / (2 + gamma * v), abs=1e-9)


def random_game(seed: int, states: int = 5, a: int = 3, b: int = 2, outcomes: int = 3) -> Game:
    rng = np.random.default_rng(seed)
    shape = (states, a, b, outcomes)
    pay = rng.normal(size=shape)
    p = rng.dirichlet(np.ones(outcomes), shape[:3])
    return Game(
        rng.integers(states, size=shape), p, np.stack((pay, -pay), -1), rng.random(shape) < 0.1, 1, {"s": np.arange(states)}
    )


@pytest.mark.parametrize("seed", range(4))
def test_best_responses_gain_nothing(seed: int) -> None:
    """Each player's strategy is sure of the value: the other's best response, solved as a decision process, gets no more."""
    game = random_game(seed)
    solution = games.shapley(game, gamma=0.9, tol=1e-11)
    against_row = mdp.policy_iteration(games.against(game, solution.row, 0), 0.9).value
    against_column = mdp.policy_iteration(games.against(game, solution.column, 1), 0.9).value
    np.testing.assert_allclose(-against_row, solution.value, atol=1e-8)
    np.testing.assert_allclose(against_column, solution.value, atol=1e-8)
    uniform = np.full((5, 3), 1 / 3)
    worse = -mdp.policy_iteration(games.against(game, uniform, 0), 0.9).value
    assert (worse <= solution.value + 1e-9).all() and worse.min() < solution.value.min() + 1e-6
    at_random = mdp.evaluate_policy(games.joint(game), None, 6)
    np.testing.assert_allclose(games.minimax(game, 6).random, at_random, atol=1e-12)


def test_refusals() -> None:
    selfish = TINY._replace(reward=np.abs(TINY.reward))
    for solver in (lambda: games.shapley(selfish, 3), lambda: games.minimax(selfish, 3)):
        with pytest.raises(ValueError, match=r"not zero-sum: rewards 1 and 1 at .* \(0, 0, 0, 0\)"):
            solver()
    assert not games.is_zero_sum(selfish) and games.is_zero_sum(TINY)
    with pytest.raises(ValueError, match="below 1 without a horizon"):
        games.shapley(TINY)
    with pytest.raises(ValueError, match="needs a time limit"):
        games.minimax(TINY, 0)
    with pytest.raises(ValueError, match="last axis the player"):
        games.check_game(TINY._replace(reward=TINY.reward[..., 0]))
    with pytest.raises(ValueError, match="next_state is outside"):
        games.check_game(TINY._replace(next_state=TINY.next_state + 9))
    with pytest.raises(ValueError, match="3 distributions over 2 actions"):
        games.against(TINY, np.ones((3, 2)), 0)


class Duel(World):
    """A stand-in: every environment is in `TINY`, at the state's number."""

    Config = World.Config

    @property
    def num_agents(self) -> int:
        return 2

    def game(self, s: Any, i: int) -> Game:
        return TINY._replace(start=int(s[0][i]))


def test_yardstick_of_two_opponents() -> None:
    world = Duel(World.Config(time_limit=2))
    lines = solve.yardstick(world, (np.array([0, 2, 0, 1]),))
    assert isinstance(lines, Yardstick) and lines.meaning.startswith("player 0's minimax value")
    np.testing.assert_allclose(lines.optimal, [1, 0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(lines.random, [1.5, 0, 1.5, 1], atol=1e-12)
    assert solve.yardstick(Duel(World.Config(time_limit=0)), (np.array([0]),)) is None
