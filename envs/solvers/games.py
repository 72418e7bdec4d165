"""Two-player zero-sum games solved exactly: matrix games by linear programming, stochastic games by Shapley's iteration.

A stochastic game (`core.Game`) is a Markov decision process whose action is the pair of both players' actions; only
the maximum over actions becomes the value of a matrix game, and there is one such game for each state. scipy is
imported where it is used, late.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...store.arrays import Array
from ..world import Game, Model
from .mdp import Progress, backup, check_model, flatten

CLOSE = 1e-9  # of the payoff's range: how near both guarantees of a solved matrix game must be
SWEEPS = 2**15  # of a discounted game before it gives up
CHUNK = 16_384  # matrix games solved at once
NUMBERS = 50_000_000  # the largest table of strategies that a solution may hold: 400 MB


class ZeroSum(NamedTuple):
    """A solved matrix game: what the row player is sure of, and a pair of strategies that are best against each other."""

    value: float  # expected payoff to the row player
    row: Array  # float64 (A,), sums to 1
    column: Array  # float64 (B,), sums to 1


class GameSolution(NamedTuple):
    """Minimax values for player 0 and a pair of optimal strategies; with a horizon T, row t is for after t steps."""

    value: Array  # float64 (T + 1, S), or (S,) without horizon
    row: Array  # float64 (T, S, A), or (S, A): player 0's probabilities of actions
    column: Array  # float64 (T, S, B), or (S, B): player 1's


def _payoff(payoff: Array, ndim: int, shape: str) -> Array:
    table: Array = np.asarray(payoff, np.float64)
    if table.ndim != ndim or 0 in table.shape[-2:]:
        raise ValueError(f"payoff has shape {table.shape}: it must be {shape}, none of them 0")
    if not np.isfinite(table).all():
        at = tuple(int(j) for j in np.argwhere(~np.isfinite(table))[0])
        raise ValueError(f"payoff at {at} is {table[at]}: payoffs are finite")
    return table


def zero_sum(payoff: Array) -> ZeroSum:
    """The minimax solution of a matrix game (von Neumann 1928), by linear programming (Dantzig 1951).

    `payoff`: float (A, B), what the column player pays to the row player. Maximise v subject to x' payoff >= v in every
    column, x a distribution; the dual variables of these constraints are the column player's strategy. A game with a
    saddle point is answered with pure strategies. ValueError: `payoff` is not a finite matrix.
    """
    table = _payoff(payoff, 2, "(actions of one player, of the other)")
    pure, value, row, column = _saddle(table[None])
    if pure[0]:
        return ZeroSum(float(value[0]), row[0], column[0])
    return _linear_program(table)


def _linear_program(table: Array) -> ZeroSum:
    from scipy.optimize import linprog

    actions, others = table.shape
    low, span = float(table.min()), float(np.ptp(table)) or 1.0
    scaled = (table - low) / span
    found = linprog(
        np.append(np.zeros(actions), -1.0),
        A_ub=np.hstack((-scaled.T, np.ones((others, 1)))),
        b_ub=np.zeros(others),
        A_eq=np.append(np.ones(actions), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * actions + [(None, None)],
        method="highs",
    )
    if not found.success:
        raise ValueError(f"no solution of a {actions} x {others} matrix game: {found.message}")
    row, column = np.maximum(found.x[:-1], 0), np.maximum(-found.ineqlin.marginals, 0)
    return ZeroSum(low + span * float(found.x[-1]), row / row.sum(), column / column.sum())


def _saddle(table: Array) -> tuple[Array, Array, Array, Array]:
    """Which of the games (M, A, B) have a saddle point (M,); value and pure maximin strategies, right for these."""
    guaranteed, conceded = table.min(2), table.max(1)
    a, b = guaranteed.argmax(1), conceded.argmin(1)
    lower, upper = guaranteed.max(1), conceded.min(1)
    return lower == upper, lower, np.eye(table.shape[1])[a], np.eye(table.shape[2])[b]


def zero_sum_batch(payoff: Array) -> tuple[Array, Array, Array]:
    """`zero_sum` for many games at once: payoff float (M, A, B) to values (M,), row (M, A) and column strategies (M, B).

    Saddle points and 2 x 2 games have closed forms; for the rest one simplex method runs on all tableaux together, and
    each answer is kept only if what either player is sure of agrees to 1e-9 of the payoff's range; else `zero_sum`'s
    linear programme solves that game. ValueError: `payoff` is not finite.
    """
    table = _payoff(payoff, 3, "(games, actions of one player, of the other)")
    parts = [_solve(table[at : at + CHUNK]) for at in range(0, max(len(table), 1), CHUNK)]
    value, row, column = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return value, row, column


def _solve(table: Array) -> tuple[Array, Array, Array]:
    pure, value, row, column = _saddle(table)
    left = np.flatnonzero(~pure)
    if not len(left):
        return value, row, column
    mixed = table[left]
    low, span = mixed.min((1, 2)), np.ptp(mixed, axis=(1, 2))  # above 0: constant games have a saddle point
    scaled = (mixed - low[:, None, None]) / span[:, None, None]
    x, y = _two_by_two(scaled) if table.shape[1:] == (2, 2) else _simplex(scaled)
    sure = np.einsum("ma,mab->mb", x, scaled).min(1)
    most = np.einsum("mab,mb->ma", scaled, y).max(1)
    value[left], row[left], column[left] = low + span * (sure + most) / 2, x, y
    for m in left[~(most - sure <= CLOSE)]:
        value[m], row[m], column[m] = _linear_program(table[m])
    return value, row, column


def _two_by_two(table: Array) -> tuple[Array, Array]:
    """Strategies that make the other indifferent, for 2 x 2 games without a saddle point."""
    (a, b), (c, d) = table[:, 0].T, table[:, 1].T
    size = a + d - b - c  # not 0: without a saddle point both of one diagonal exceed both of the other
    p, q = (d - c) / size, (d - b) / size
    return np.stack((p, 1 - p), 1), np.stack((q, 1 - q), 1)


def _simplex(table: Array) -> tuple[Array, Array]:
    """Optimal strategies of games (M, A, B) with payoffs in 0..1, by the simplex method on all of them at once.

    With every payoff raised by 1, the value v is above 0 and the column player's y = u v solves: maximise sum(u) = 1/v
    subject to (payoff + 1) u <= 1, u >= 0. The slacks' reduced costs are the row player's x / v. Pivots follow Bland
    (1977): smallest index first, in and out, so that ties cannot cycle.
    """
    games, a, b = table.shape
    t = np.zeros((games, a + 1, b + a + 1))  # constraints, then the objective; columns u, slacks, right-hand side
    t[:, :a, :b] = table + 1
    t[:, :a, b : b + a] = np.eye(a)
    t[:, :a, -1] = 1
    t[:, a, :b] = -1
    basis = np.broadcast_to(np.arange(b, b + a), (games, a)).copy()
    live = np.arange(games)
    for _ in range(20 * (a + b)):  # far above what small games need; what is left then is solved by other means
        wanted = t[live, a, :-1] < -1e-12
        live, wanted = live[wanted.any(1)], wanted[wanted.any(1)]
        if not len(live):
            break
        enter, n = wanted.argmax(1), np.arange(len(live))
        now = t[live]
        pivots = now[n, :a, enter]
        ratio = np.divide(now[:, :a, -1], pivots, out=np.full(pivots.shape, np.inf), where=pivots > 1e-12)
        tied = ratio <= ratio.min(1, keepdims=True) + 1e-13
        leave = np.where(tied, basis[live], b + a).argmin(1)
        line = now[n, leave] / now[n, leave, enter][:, None]
        now -= now[n, :, enter][:, :, None] * line[:, None]
        now[n, leave] = line
        t[live] = now
        basis[live, leave] = enter
    solution = np.zeros((games, b + a))
    np.put_along_axis(solution, basis, t[:, :a, -1], 1)
    y, x = np.maximum(solution[:, :b], 0), np.maximum(t[:, a, b : b + a], 0)
    total = np.maximum(t[:, a, -1:], 1e-300)  # 1 / v
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        x, y = x / total, y / total
        return x / x.sum(1, keepdims=True), y / y.sum(1, keepdims=True)


# --- stochastic games


def joint(game: Game) -> Model:
    """The game as a decision process of one who moves both players: action a * B + b, and the reward of player 0."""
    states, a, b, outcomes = game.next_state.shape
    shape = (states, a * b, outcomes)
    tables = (game.next_state, game.probability, game.reward[..., 0], game.terminated)
    next_state, probability, reward, terminated = (np.reshape(table, shape) for table in tables)
    return Model(next_state, probability, reward, terminated, game.start, game.fields)


def check_game(game: Game) -> None:
    """Raise ValueError, in one line, where `game` is no stochastic game of two players."""
    shape = np.shape(game.next_state)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"game.next_state has shape {shape}: it must be (states, actions, actions, outcomes), none of them 0")
    if np.shape(game.reward) != (*shape, 2):
        raise ValueError(f"game.reward has shape {np.shape(game.reward)}: it must be {(*shape, 2)}, the last axis the player")
    if not np.isfinite(game.reward).all():
        at = tuple(int(j) for j in np.argwhere(~np.isfinite(game.reward))[0])
        raise ValueError(f"game: reward is not finite at (state, action, action, outcome, player) {at}")
    for name, array in (("probability", game.probability), ("terminated", game.terminated)):
        if array.shape != shape:
            raise ValueError(f"game.{name} has shape {array.shape}, next_state {shape}: make them equal")
    check_model(joint(game))


def is_zero_sum(game: Game) -> bool:
    """Whether what one player gets the other loses, in every outcome that can happen."""
    return not _unbalanced(game).any()


def _unbalanced(game: Game) -> Array:
    total = game.reward.sum(-1)
    bad: Array = (np.abs(total) > 1e-9 * (1 + np.abs(game.reward).max(-1))) & (game.probability > 0)
    return bad


def require_zero_sum(game: Game) -> None:
    """Raise ValueError at the first outcome where the players' rewards do not cancel out."""
    bad = _unbalanced(game)
    if bad.any():
        at = tuple(int(j) for j in np.argwhere(bad)[0])
        one, two = game.reward[at].tolist()
        raise ValueError(
            f"the game is not zero-sum: rewards {one:g} and {two:g} at (state, action, action, outcome) {at}; "
            "minimax values exist where one player's gain is the other's loss"
        )


def shapley(
    game: Game, horizon: int | None = None, gamma: float = 1.0, tol: float = 1e-8, progress: Progress | None = None
) -> GameSolution:
    """Minimax values and strategies of a two-player zero-sum stochastic game (Shapley 1953).

    V(s) = val_{a,b} [ r(s, a, b) + gamma sum_s' p(s' | s, a, b) V(s') ], val the value of a matrix game. With `horizon`
    backward induction over so many steps; without, and with gamma < 1, sweeps until V is within `tol` of the solution
    (the operator contracts by gamma). Returns a `GameSolution`. ValueError: not zero-sum, or neither bound is given.
    """
    require_zero_sum(game)
    if horizon is not None and horizon < 0:
        raise ValueError(f"horizon is {horizon}: it must be at least 0 steps")
    if not 0 <= gamma <= 1 or horizon is None and gamma == 1:
        raise ValueError(f"gamma is {gamma}: it must be in 0..1, and below 1 without a horizon")
    states, a, b, _ = game.next_state.shape
    flat = flatten(joint(game))

    def stage(value: Array) -> tuple[Array, Array, Array]:
        return zero_sum_batch(np.moveaxis(backup(flat, value, gamma), 1, 0).reshape(states, a, b))

    if horizon is not None:
        if horizon * states * (a + b + 1) > NUMBERS:
            raise ValueError(f"strategies of {states:,} states over {horizon:,} steps do not fit: use minimax for values alone")
        value = np.zeros((horizon + 1, states))
        row, column = np.zeros((horizon, states, a)), np.zeros((horizon, states, b))
        for t in range(horizon - 1, -1, -1):
            value[t], row[t], column[t] = stage(value[t + 1])
            if progress:
                progress(horizon - t, horizon)
        return GameSolution(value, row, column)
    value = np.zeros((states,))
    for sweep in range(SWEEPS):
        after, row, column = stage(value)
        change, value = float(np.abs(after - value).max()), after
        if progress:
            progress(sweep + 1, 0)
        if gamma * change <= tol * (1 - gamma):
            return GameSolution(value, row, column)
    raise ValueError(f"the game with gamma {gamma:g} does not settle within {tol:g} in {SWEEPS:,} sweeps: raise tol")


class Minimax(NamedTuple):
    """A game with a time limit from its first step: what `minimax` gives."""

    random: Array  # float64 (S,): expected return of player 0 where both play uniformly at random
    value: Array  # float64 (S,): where both play their best
    row: Array  # float64 (S, A): player 0's strategy in the first step
    column: Array  # float64 (S, B): player 1's


def minimax(game: Game, horizon: int, progress: Progress | None = None) -> Minimax:
    """As `shapley` over `horizon` steps, and both at random, without keeping what is only needed later in the episode.

    ValueError: not zero-sum, or a horizon of 0.
    """
    require_zero_sum(game)
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}: a game without discount needs a time limit")
    states, a, b, _ = game.next_state.shape
    flat = flatten(joint(game))
    lazy = best = np.zeros(states)
    for step in range(horizon):
        before = best, lazy
        lazy = backup(flat, lazy).mean(0)
        best, row, column = zero_sum_batch(np.moveaxis(backup(flat, best), 1, 0).reshape(states, a, b))
        if progress:
            progress(step + 1, horizon)
        if max(np.abs(best - before[0]).max(), np.abs(lazy - before[1]).max()) == 0.0:  # a longer limit changes nothing
            break
    return Minimax(lazy, best, row, column)


def against(game: Game, strategy: Array, player: int) -> Model:
    """What the other faces when `player` (0 or 1) keeps to a stationary `strategy`, float (S, its actions): a `Model`.

    Its reward is the other's own. Solving it gives a best response, and so how far `strategy` can be exploited.
    """
    if player not in (0, 1):
        raise ValueError(f"player is {player}: it must be 0 or 1")
    states, *actions, outcomes = game.next_state.shape
    mine, theirs = actions[player], actions[1 - player]
    strategy = np.asarray(strategy, np.float64)
    if strategy.shape != (states, mine) or strategy.min() < 0 or np.abs(strategy.sum(1) - 1).max() > 1e-9:
        raise ValueError(f"strategy has shape {strategy.shape}: it must hold {states} distributions over {mine} actions")

    def turned(table: Array) -> Array:  # (S, the other's actions, the player's actions, K)
        return np.swapaxes(table, 1, 2) if player == 0 else table

    shape = (states, theirs, mine * outcomes)
    p = turned(game.probability) * strategy[:, None, :, None]
    tables = (turned(game.next_state), p, turned(game.reward[..., 1 - player]), turned(game.terminated))
    next_state, probability, reward, terminated = (np.reshape(table, shape) for table in tables)
    return Model(next_state, probability, reward, terminated, game.start, game.fields)
