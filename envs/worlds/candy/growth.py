"""What happens on the board by itself: candies grow, waste falls, values change."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....store.arrays import Array
from ...rng import GOLDEN, ONE, S11, TO_UNIT, below, bits, chance, mix
from ...world import helper
from .features import CLEANING, DRIFT, NEIGHBOUR, SEASONS, SWITCH


@helper
def candies_near(s: Any, i: int, at: int, c: Any) -> int:
    """Candies within distance 2 (dy^2 + dx^2 <= 4) of flat cell `at`, itself left out."""
    pad = c.window // 2
    stride = c.size + 2 * pad
    y, x, count = at // stride, at % stride, 0
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            inside = pad <= y + dy < pad + c.size and pad <= x + dx < pad + c.size
            if inside and 0 < dy * dy + dx * dx <= 4:
                kind = s.candy[i, at + dy * stride + dx]
                count += 0 < kind <= c.kinds
    return count


@helper
def grow(s: Any, i: int, c: Any, rng: Array) -> None:
    """Candies grow again where some stood at the start: one draw for each such cell, in their order."""
    rate = c.grow_rate
    if c.features & CLEANING:
        rate *= max(0.0, 1.0 - s.waste[i] * c.dirt)
    key, count = rng[i, 0], rng[i, 1]
    for n in range(c.candies):
        count = count + ONE
        at = int(s.spot[i, n])
        u = np.float64(mix(key + count * GOLDEN) >> S11) * TO_UNIT
        if (u < rate) & (s.candy[i, at] == 0):
            if (c.features & NEIGHBOUR) == 0 or u < c.by_neighbours[(min(candies_near(s, i, at, c), 5) + 1) // 2]:
                s.candy[i, at] = s.grows[i, n]
                s.left[i] += 1
    rng[i, 1] = count
    if c.features & CLEANING:
        pad = c.window // 2
        j = below(rng, i, c.river_cells)
        at = (j // c.size + pad) * (c.size + 2 * pad) + j % c.size + pad
        if chance(rng, i, c.waste_rate) and s.candy[i, at] == 0:
            s.candy[i, at] = c.kinds + 1
            s.waste[i] += 1


@helper
def revalue(s: Any, i: int, c: Any, rng: Array) -> None:
    """Values change at the end of a step."""
    if c.features & DRIFT:
        coins = bits(rng, i)
        for kind in range(1, c.kinds + 1):
            up = np.int64(coins & ONE)
            coins = coins >> ONE
            v = s.value[i, kind] + (2.0 * up - 1.0) * c.change_rate
            v = 2.0 * c.bound - v if v > c.bound else v
            s.value[i, kind] = -2.0 * c.bound - v if v < -c.bound else v
    on = False
    if c.features & SEASONS:
        s.phase[i] += 1
        on = s.phase[i] >= c.period
        if on:
            s.phase[i] = 0
    if c.features & SWITCH:
        on = chance(rng, i, c.change_rate)
    if c.features & (SEASONS | SWITCH):
        s.shift[i] = (int(s.shift[i]) + on) % c.kinds
