"""What grid worlds share: directions, slipping, words of eight tiles at once, and windows of a padded board."""

from __future__ import annotations

import numpy as np

from ..store.arrays import Array
from .rng import unit
from .world import helper

LEFT, DOWN, RIGHT, UP, STAY = (
    0,
    1,
    2,
    3,
    4,
)  # Gymnasium's FrozenLake order: a - 1 and a + 1 (mod 4) are perpendicular
DY = np.array([0, 1, 0, -1, 0])
DX = np.array([-1, 0, 1, 0, 0])
ARROWS = "<v>^o"
U1, U2, U3, U4, U5, U6, U7, U8 = (np.uint64(v) for v in range(1, 9))  # unsigned: an index that cannot wrap around


@helper
def slipped(rng: Array, i: int, action: int, slip: float) -> int:
    """The direction really taken: with probability `slip` one of the two perpendicular to `action`.

    One draw if slip > 0 and the action is a move, else none. slip = 2/3 is Gymnasium's slippery FrozenLake.
    """
    if slip > 0.0 and action < 4:
        u = unit(rng, i)
        if u < slip:
            return (action + 1) & 3 if 2.0 * u < slip else (action + 3) & 3
    return action


@helper
def slip_outcomes(action: int, slip: float) -> tuple[tuple[int, float], tuple[int, float], tuple[int, float]]:
    """The same law as `slipped`, for transition models: three (direction, probability) pairs."""
    if action >= 4:
        return (action, 1.0), (action, 0.0), (action, 0.0)
    return (action, 1.0 - slip), ((action + 1) & 3, slip / 2), ((action + 3) & 3, slip / 2)


@helper
def turned(rng: Array, i: int, action: int, slip: float) -> int:
    """`slipped` for moves alone, without a branch on what was drawn, which no processor could predict."""
    if slip > 0.0:
        u = unit(rng, i)
        return (action + (u < slip) + 2 * (2.0 * u < slip)) & 3
    return action


@helper
def copy_window(source: Array, at: int, stride: int, k: int, out: Array, start: int, total: int) -> None:
    """Copy a k x k window of the flat byte board `source`; see `copy_block`."""
    copy_block(source, at, stride, k, k, out, start, total)


@helper
def copy_block(source: Array, at: int, stride: int, rows: int, columns: int, out: Array, start: int, total: int) -> None:
    """Copy a block of the flat byte board `source`, whose rows are `stride` apart, to out[start:start + rows * columns].

    Eight tiles travel as one word: the compiler merges eight byte loads, and eight byte stores, into one each. A word
    may run over the end of its row, where the next row overwrites it; near `total`, the end of `out`, smaller ones go.
    `source` needs 7 spare bytes behind its last row.
    """
    for row in range(rows):
        for j in range(0, columns, 8):
            a, b = np.uint64(at + row * stride + j), np.uint64(start + row * columns + j)
            if b + U8 <= np.uint64(total):
                t0, t1, t2, t3 = source[a], source[a + U1], source[a + U2], source[a + U3]
                t4, t5, t6, t7 = source[a + U4], source[a + U5], source[a + U6], source[a + U7]
                out[b], out[b + U1], out[b + U2], out[b + U3] = t0, t1, t2, t3
                out[b + U4], out[b + U5], out[b + U6], out[b + U7] = t4, t5, t6, t7
            else:  # fewer than eight are left: as four, two and one
                rest = columns - j
                if rest & 4:
                    t0, t1, t2, t3 = source[a], source[a + U1], source[a + U2], source[a + U3]
                    out[b], out[b + U1], out[b + U2], out[b + U3] = t0, t1, t2, t3
                    a, b = a + U4, b + U4
                if rest & 2:
                    t0, t1 = source[a], source[a + U1]
                    out[b], out[b + U1] = t0, t1
                    a, b = a + U2, b + U2
                if rest & 1:
                    out[b] = source[a]
