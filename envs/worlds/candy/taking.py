"""Who moves where, who takes a candy, and what that pays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....store.arrays import Array
from ...rng import GOLDEN, S11, TO_UNIT, below, mix
from ...world import helper
from .features import DRIFT, DUEL, INHABITED, NOBODY_WINS, OWNED, PAYOFF, POCKET, REACT, RESPAWN, SEASONS, SPLIT, SPOTS, SWITCH


@helper
def slid(rng: Array, i: int, action: int, slip: float) -> int:
    """The law and the draws of `grid.slipped` without a branch on a random outcome, which processors guess wrongly."""
    if slip <= 0.0:
        return action
    move = action < 4
    count = rng[i, 1] + np.uint64(move)
    rng[i, 1] = count
    u = np.float64(mix(rng[i, 0] + count * GOLDEN) >> S11) * TO_UNIT
    turn = (u < slip) * (3 - 2 * (2.0 * u < slip))
    return int((action + turn) & 3) if move else action


@helper
def mover(first: int, turn: int, c: Any) -> int:
    """Who moves in turn `turn`: all round from collector `first` on, or from `first` - bodies on the other way round.

    With `first` drawn from 2 * bodies numbers each of two collectors is ahead of the other half of the time; with one way
    alone, of three, each would be ahead of the next one in two steps of three.
    """
    return (first + turn) % c.bodies if first < c.bodies else (first - turn) % c.bodies


@helper
def cell_of(s: Any, i: int, k: int, c: Any) -> int:
    """Where on the flat board, rim included, collector `k` stands."""
    pad = c.window // 2
    return (int(s.y[i, k]) + pad) * (c.size + 2 * pad) + int(s.x[i, k]) + pad


@helper
def distance(s: Any, i: int, a: int, b: int) -> int:
    """Steps between two collectors, |dy| + |dx|."""
    return abs(int(s.y[i, a]) - int(s.y[i, b])) + abs(int(s.x[i, a]) - int(s.x[i, b]))


@helper
def value_of(s: Any, i: int, kind: int, c: Any) -> float:
    """What a candy of board code `kind` (from 1) is worth now."""
    if c.features & (DRIFT | REACT):
        return s.value[i, kind]
    if c.features & (SEASONS | SWITCH):
        return c.worth[1 + (kind - 1 + int(s.shift[i])) % c.kinds]
    return c.worth[kind]


@helper
def pay(s: Any, i: int, k: int, kind: int, share: float, c: Any, reward: Array) -> None:
    """Collector `k` takes `share` of a candy: rewards of all, inventory, grudges."""
    value = value_of(s, i, kind, c) * share
    owner = (kind - 1) % c.bodies
    match = (c.features & OWNED) == 0 or owner == k
    if c.features & PAYOFF:
        if k < c.agents:
            reward[k] += value * (c.payoff[0] if match else c.payoff[1])
        to_others = value * (c.payoff[2] if match else c.payoff[3])
        for o in range(c.agents):  # another's candy hurts, or helps, its owner; one's own all the others
            if o != k and (match or o == owner):
                reward[o] += to_others
    else:  # without a branch on who it is: an inhabitant's gain is nobody's
        reward[min(k, c.agents - 1)] += value * (k < c.agents)
    if c.features & DUEL:
        at = k * c.kinds + kind - 1
        s.pocket[i, at] = min(int(s.pocket[i, at]) + 1, POCKET)
    if c.features & INHABITED and owner != k:
        s.grudge[i, owner] = 1
        s.grudge[i, k] = 0


@helper
def removed(s: Any, i: int, at: int, kind: int, c: Any, rng: Array) -> None:
    """A candy is gone from cell `at`: what follows for prices and for the board."""
    s.candy[i, at] = 0
    s.left[i] -= 1
    if c.features & REACT:
        s.value[i, kind] *= 1.0 - c.change_rate
    if c.features & RESPAWN:
        pad = c.window // 2
        while True:
            j = below(rng, i, c.size * c.size)
            there = (j // c.size + pad) * (c.size + 2 * pad) + j % c.size + pad
            taken = s.candy[i, there] > 0
            for o in range(c.bodies):
                taken = taken or cell_of(s, i, o, c) == there
            if not taken:
                break
        s.candy[i, there] = 1 + below(rng, i, c.kinds)
        s.left[i] += 1
        if c.features & SPOTS:
            for n in range(c.candies):
                if s.spot[i, n] == at:
                    s.spot[i, n] = there


@helper
def take_together(s: Any, i: int, first: int, c: Any, rng: Array, reward: Array) -> None:
    """After all have moved, in the same order (see `mover`): who gets the candies under them.

    Those on a candy's cell who can take it alone go by `tie`. What none of them can goes to all on the cell together, or
    to all in reach if it needs these too. Who take one together share it in proportion to their levels (level-based
    foraging, Albrecht & Ramamoorthy 2013).
    """
    for turn in range(c.bodies):
        k = mover(first, turn, c)
        at = cell_of(s, i, k, c)
        kind = int(s.candy[i, at])
        if 0 < kind <= c.kinds:
            here, near, able = 0, 0, 0
            for o in range(c.bodies):
                steps, level = distance(s, i, k, o), int(s.level[i, o])
                here += level * (steps == 0)
                near += level * (steps <= c.reach)
                able += (steps == 0) & (level >= c.need[kind])
            if c.features & SPLIT or able == 0:
                enough = here >= c.need[kind]
                total, reach = (here if enough else near), (0 if enough else c.reach)
                if total >= c.need[kind]:
                    for o in range(c.bodies):
                        if distance(s, i, k, o) <= reach:
                            pay(s, i, o, kind, int(s.level[i, o]) / (total * 1.0), c, reward)
                    removed(s, i, at, kind, c, rng)
            elif s.level[i, k] >= c.need[kind] and ((c.features & NOBODY_WINS) == 0 or able == 1):
                pay(s, i, k, kind, 1.0, c, reward)
                removed(s, i, at, kind, c, rng)
