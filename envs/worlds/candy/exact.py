"""Exact models of configurations small enough: of one collector's episode, and of the game that two play."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...grid import DX, DY, slip_outcomes
from ...world import Game, Model
from . import features as f
from .config import Config
from .state import State

MODEL_STATES = 40_000  # states up to which an exact model is built: cells * 2^candies, times seasons
MODEL_ENTRIES = 6_000_000  # states * actions * outcomes of a model
GAME_ENTRIES = 1_500_000  # states * actions * actions * outcomes of a game


def model_shape(o: Config) -> tuple[int, int, int] | None:
    """(shifts, phases, outcomes) of an exact model with all candies, or None where there is none."""
    used = o.features
    never = f.CLEANING | f.NEIGHBOUR | f.RESPAWN | f.DRIFT | f.REACT | f.JOINT | f.LEVELS | f.ZAP | f.GIFT | f.SIGNAL | f.DUEL
    if o.bodies > 1 or used & never:
        return None
    shifts = len(o.values) if used & (f.SEASONS | f.SWITCH) else 1
    phases = o.period if used & f.SEASONS else 1
    sets = 1 << o.candies
    outcomes = 3 * (sets if used & f.GROW else 1) * (2 if used & f.SWITCH else 1)
    states = o.size * o.size * sets * shifts * phases
    return (shifts, phases, outcomes) if states <= MODEL_STATES and states * 5 * outcomes <= MODEL_ENTRIES else None


def game_fits(o: Config) -> bool:
    """Whether the two agents' game is one of moves and candies alone, and small."""
    used = o.features
    plain = used & ~(f.PAYOFF | f.OWNED | f.HIDDEN | f.NOISE | f.STATUS | f.BLOCK | f.FIRST | f.PLAIN) == 0
    states = (o.size**4) << o.candies
    orders = 1 if used & f.FIRST else 2
    return plain and o.bodies == o.agents == 2 and states * 25 * 9 * orders <= GAME_ENTRIES * (1 if o.slip else 9)


def solver(o: Config) -> str:
    """What solves the configuration, "" where nothing does."""
    if model_shape(o) is not None:
        return "dynamic programming"
    own, others, to_others, to_owner = o.payoff
    zero_sum = own + to_others == 0 and others + to_owner == 0
    return "stochastic game" if game_fits(o) and zero_sum else ""


def model(o: Config, s: State, i: int) -> Model | None:
    """States: (set of candies on the board, shift and phase of the values, cell), for one collector.

    State index = ((set * shifts + shift) * phases + phase) * cells + cell; without seasons set * cells + cell.
    """
    used, fit = o.features, model_shape(o)
    if fit is None:
        return None
    shifts, phases, _ = fit
    pad = o.view // 2
    stride, cells = o.size + 2 * pad, o.size * o.size
    y, x = np.divmod(np.arange(cells), o.size)
    flat = (y + pad) * stride + x + pad  # (cells,) on the board with its rim
    if used & f.GROW:
        order = np.argsort(s.spot[i])
        where, kinds = s.spot[i][order].astype(np.int64), s.grows[i][order].astype(np.int64)
    else:
        where = flat[s.candy[i, flat] > 0]
        kinds = s.candy[i, where].astype(np.int64)
    candies = len(where)
    sets = 1 << candies
    bit = np.zeros(len(s.candy[i]), np.int64)
    bit[where] = 1 << np.arange(candies)
    bit = bit[flat]
    kind_at = np.zeros(len(s.candy[i]), np.int64)
    kind_at[where] = kinds
    turned = (kind_at[flat] - 1 + np.arange(shifts)[:, None]) % len(o.values)  # (shifts, cells)
    worth = np.where(bit > 0, np.array(o.values)[turned], 0.0) * o.payoff[0]

    # Axes: set, shift, phase, cell, action, outcome; an outcome is a slip, what grows, whether values switch.
    subset = np.arange(sets)[:, None, None, None]
    shift = np.arange(shifts)[None, :, None, None]
    phase = np.arange(phases)[None, None, :, None]
    later = (phase + 1) % phases if used & f.SEASONS else phase
    turns = (phase + 1 == phases).astype(np.int64) if used & f.SEASONS else np.zeros((1, 1, 1, 1), np.int64)
    grown = np.arange(sets) if used & f.GROW else np.zeros(1, np.int64)
    switched = (0, 1) if used & f.SWITCH else (0,)
    shape = (sets, shifts, phases, cells, 5, 3 * len(grown) * len(switched))
    next_state, probability = np.zeros(shape, np.int64), np.zeros(shape)
    reward, terminated = np.zeros(shape), np.zeros(shape, np.bool_)
    size_of = np.array([bin(j).count("1") for j in range(sets)])
    for a in range(5):
        outcome = 0
        for d, p in slip_outcomes(a, o.slip):
            cell = np.clip(y + DY[d], 0, o.size - 1) * o.size + np.clip(x + DX[d], 0, o.size - 1)  # (cells,)
            after = subset & ~bit[cell]
            gain = ((subset & bit[cell]) > 0) * worth[:, cell][None, :, None, :]
            for g in grown:
                bare = (sets - 1) & ~after
                q: Any = 1.0
                if used & f.GROW:
                    born = size_of[g]
                    q = np.where(g & ~bare, 0.0, o.grow_rate**born * (1 - o.grow_rate) ** (size_of[bare] - born))
                for flip in switched:
                    r = (o.change_rate if flip else 1 - o.change_rate) if used & f.SWITCH else 1.0
                    to = (((after | g) * shifts + (shift + turns + flip) % shifts) * phases + later) * cells + cell
                    index = (..., a, outcome)
                    next_state[index], probability[index], reward[index] = to, p * q * r, gain
                    terminated[index] = (after == 0) & (not used & f.ENDLESS)
                    outcome += 1
    states = sets * shifts * phases * cells
    table = (states, 5, shape[-1])
    held = (np.arange(sets)[:, None] >> np.arange(candies)) & 1  # (sets, candies)
    board = np.repeat(s.candy[i][None], sets, axis=0)
    board[:, where] = held * kinds
    full = np.broadcast_to
    grid = (sets, shifts, phases, cells)
    fields = {
        "candy": np.repeat(board, shifts * phases * cells, axis=0),
        "y": full(y.astype(np.int16), grid).reshape(states, 1),
        "x": full(x.astype(np.int16), grid).reshape(states, 1),
        "left": full(held.sum(1).astype(np.int16)[:, None, None, None], grid).reshape(states),
    }
    if used & (f.SEASONS | f.SWITCH):
        fields["shift"] = full(shift.astype(np.uint8), grid).reshape(states)
    if used & f.SEASONS:
        fields["phase"] = full(phase.astype(np.int16), grid).reshape(states)
    here = int((held == (s.candy[i, where] > 0)).all(1).argmax())
    start = ((here * shifts + int(s.shift[i]) % shifts) * phases + int(s.phase[i]) % phases) * cells
    return Model(
        next_state.reshape(table),
        probability.reshape(table),
        reward.reshape(table),
        terminated.reshape(table),
        start + int(s.y[i, 0]) * o.size + int(s.x[i, 0]),
        fields,
    )


def game(o: Config, s: State, i: int) -> Game | None:
    """States: (set of candies left, cell of player 0, cell of player 1); the deadline is the solver's horizon.

    State index = (set * cells + cell 0) * cells + cell 1. An outcome is who moves first and how both slip.
    """
    used = o.features
    if not game_fits(o):
        return None
    pad = o.view // 2
    stride, cells = o.size + 2 * pad, o.size * o.size
    y, x = np.divmod(np.arange(cells), o.size)
    flat = (y + pad) * stride + x + pad
    where = flat[s.candy[i, flat] > 0]
    kinds = s.candy[i, where].astype(np.int64)
    sets = 1 << len(where)
    bit, kind_at = np.zeros(len(s.candy[i]), np.int64), np.zeros(len(s.candy[i]), np.int64)
    bit[where], kind_at[where] = 1 << np.arange(len(where)), kinds
    bit, kind_at = bit[flat], kind_at[flat]
    worth = np.where(bit > 0, np.array(o.values)[kind_at - 1], 0.0)
    subset = np.arange(sets)[:, None, None]
    spots = [np.arange(cells)[None, :, None], np.arange(cells)[None, None, :]]  # of player 0 and 1: (1, cells, cells)
    orders = (0,) if used & f.FIRST else (0, 1)
    slips = range(3) if o.slip > 0 else range(1)
    table = (sets, cells, cells, 5, 5, len(orders) * len(slips) ** 2)
    next_state, probability = np.zeros(table, np.int64), np.zeros(table)
    reward, terminated = np.zeros((*table, 2)), np.zeros(table, np.bool_)
    for a in range(5):
        for b in range(5):
            outcome = 0
            for first in orders:
                for m in slips:
                    for n in slips:
                        (d0, p0), (d1, p1) = slip_outcomes(a, o.slip)[m], slip_outcomes(b, o.slip)[n]
                        at, after = list(spots), subset + 0 * spots[0] + 0 * spots[1]  # (sets, cells, cells)
                        gains = [0.0 * after, 0.0 * after]
                        for k in (first, 1 - first):
                            d, row, column = (d0, d1)[k], at[k] // o.size, at[k] % o.size
                            to = np.clip(row + DY[d], 0, o.size - 1) * o.size + np.clip(column + DX[d], 0, o.size - 1)
                            at[k] = np.where(to == at[1 - k], at[k], to) if used & f.BLOCK else to
                            value = ((after & bit[at[k]]) > 0) * worth[at[k]]
                            match = (kind_at[at[k]] - 1) % 2 == k if used & f.OWNED else True
                            gains[k] = gains[k] + value * np.where(match, o.payoff[0], o.payoff[1])
                            gains[1 - k] = gains[1 - k] + value * np.where(match, o.payoff[2], o.payoff[3])
                            after = after & ~bit[at[k]]
                        index = (..., a, b, outcome)
                        next_state[index] = (after * cells + at[0]) * cells + at[1]
                        probability[index] = p0 * p1 / len(orders)
                        reward[..., a, b, outcome, :] = np.stack(gains, -1)
                        terminated[index] = after == 0
                        outcome += 1
    states = sets * cells * cells
    held = (np.arange(sets)[:, None] >> np.arange(len(where))) & 1
    board = np.repeat(s.candy[i][None], sets, axis=0)
    board[:, where] = held * kinds
    grid = (sets, cells, cells)
    pairs = np.stack([np.broadcast_to(spot, grid).reshape(states) for spot in spots], 1)  # (states, 2)
    fields = {
        "candy": np.repeat(board, cells * cells, axis=0),
        "y": (pairs // o.size).astype(np.int16),
        "x": (pairs % o.size).astype(np.int16),
        "left": np.repeat(held.sum(1), cells * cells).astype(np.int16),
    }
    here = [int(s.y[i, k]) * o.size + int(s.x[i, k]) for k in (0, 1)]
    flat_table = (states, 5, 5, table[-1])
    return Game(
        next_state.reshape(flat_table),
        probability.reshape(flat_table),
        reward.reshape(*flat_table, 2),
        terminated.reshape(flat_table),
        ((sets - 1) * cells + here[0]) * cells + here[1],
        fields,
    )
