"""What a collector sees: eight cells' codes at once to the planes, errors of reading, the status plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....store.arrays import Array
from ...grid import U1, U2, U3, U4, U5, U6, U7, U8
from ...rng import GOLDEN, S11, S32, TO_UNIT, mix
from ...world import helper
from .features import CLEANING, DUEL, HIDDEN, LEVELS, OUTSIDE, OWNED, POCKET, SEASONS, SIGNAL, TYPES, ZAP

EACH, LOW, HIGH = (np.uint64(v * 0x0101010101010101) for v in (1, 0x7F, 0x80))  # the same byte eight times
BYTE, S16, S24, S40, S48, S56 = (np.uint64(v) for v in (255, 16, 24, 40, 48, 56))


@helper
def misread(s: Any, i: int, k: int, c: Any, out: Array, plane: int) -> None:
    """Replace each code in out[:plane], with probability `noise`, by another one drawn uniformly; the rim stays.

    `observe` draws nothing: the error is a hash of the step's own random word, the collector and the cell.
    """
    codes = c.kinds + (2 if c.features & CLEANING else 1)
    for j in range(plane):
        h = mix(s.noise[i] + np.uint64(k * plane + j + 1) * GOLDEN)
        u = np.float64(h >> S11) * TO_UNIT
        other = np.int64(((mix(h + GOLDEN) >> S32) * np.uint64(codes - 1)) >> S32)
        code = int(out[j])
        if u < c.noise and code != OUTSIDE:
            out[j] = (code + 1 + other) % codes


@helper
def word(source: Array, at: Any) -> Any:
    """Eight bytes of `source` from the uint64 index `at` on as one number, the first byte lowest: one load."""
    low = np.uint64(source[at]) | np.uint64(source[at + U1]) << U8 | np.uint64(source[at + U2]) << S16
    low = low | np.uint64(source[at + U3]) << S24 | np.uint64(source[at + U4]) << S32 | np.uint64(source[at + U5]) << S40
    return low | np.uint64(source[at + U6]) << S48 | np.uint64(source[at + U7]) << S56


@helper
def put_word(out: Array, at: int, bytes_: Any) -> None:
    """Write eight bytes from out[at] on: one store."""
    a = np.uint64(at)
    out[a], out[a + U1], out[a + U2] = (
        np.uint8(bytes_ & BYTE),
        np.uint8((bytes_ >> U8) & BYTE),
        np.uint8((bytes_ >> S16) & BYTE),
    )
    out[a + U3], out[a + U4] = np.uint8((bytes_ >> S24) & BYTE), np.uint8((bytes_ >> S32) & BYTE)
    out[a + U5], out[a + U6] = np.uint8((bytes_ >> S40) & BYTE), np.uint8((bytes_ >> S48) & BYTE)
    out[a + U7] = np.uint8(bytes_ >> S56)


@helper
def equal(bytes_: Any, code: int) -> Any:
    """1 in each of eight bytes that is `code`, else 0 (Warren, Hacker's Delight, section 6-1: find the zero byte)."""
    x = bytes_ ^ (EACH * np.uint64(code))
    return (~(((x & LOW) + LOW) | x) & HIGH) >> U7


@helper
def spread(codes: Any, k: int, c: Any, out: Array, j: int, plane: int, shown: int, waste: int) -> None:
    """Eight cells' codes, from cell `j` on, to the planes of candies, of the agent (or what is outside) and of waste."""
    if c.features & HIDDEN:
        none = equal(codes, 0) | equal(codes, OUTSIDE)
        if c.features & CLEANING:
            none = none | equal(codes, c.kinds + 1)
        put_word(out, j, none ^ EACH)
    else:
        for p in range(c.kinds):
            put_word(out, p * plane + j, equal(codes, 1 + ((p + k) % c.kinds if c.features & OWNED else p)))
    put_word(out, shown * plane + j, equal(codes, OUTSIDE) if c.window > 0 else np.uint64(0))
    if c.features & CLEANING:
        put_word(out, waste + j, equal(codes, c.kinds + 1))


@helper
def spread_one(code: Any, k: int, c: Any, out: Array, j: int, plane: int, shown: int, waste: int) -> None:
    """`spread` for the code of the single cell `j`."""
    if c.features & HIDDEN:
        out[np.uint64(j)] = (code > 0) & (code <= c.kinds)
    else:
        for p in range(c.kinds):
            out[np.uint64(p * plane + j)] = code == 1 + ((p + k) % c.kinds if c.features & OWNED else p)
    out[np.uint64(shown * plane + j)] = code == OUTSIDE
    if c.features & CLEANING:
        out[np.uint64(waste + j)] = code == c.kinds + 1


@helper
def tell(s: Any, i: int, k: int, c: Any, out: Array, at: int) -> None:
    """Write the status plane's bits from out[at] on, in the order that `Candy` documents."""
    if c.features & SEASONS:
        out[at + int(s.shift[i])] = 1
        at += c.kinds
    if c.features & ZAP:
        out[at] = 0 < s.frozen[i, k] <= c.zap
        at += 1
    if c.features & SIGNAL:
        for j in range(1, c.bodies):
            out[at + j - 1] = s.signal[i, (k + j) % c.bodies]
        at += c.bodies - 1
    if c.features & LEVELS:
        for j in range(c.bodies):
            for m in range(s.level[i, (k + j) % c.bodies]):
                out[at + m] = 1
            at += c.most_level
    if c.features & DUEL:
        for kind in range(c.kinds):
            for m in range(s.pocket[i, k * c.kinds + kind]):
                out[at + m] = 1
            at += POCKET
    if c.features & TYPES:
        for o in range(c.agents, c.bodies):
            out[at + int(s.type[i, o])] = 1
            at += c.type_names
