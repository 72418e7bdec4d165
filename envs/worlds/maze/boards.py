"""The boards that all environments of a maze share: one, or its levels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ....store.arrays import Array
from ...rng import copy_seeds
from .tiles import FLOOR, GENERATORS, GOAL, WALL, codes_of, padded


class Boards(NamedTuple):
    """The boards that all environments share: L levels, P padded cells each and 7 spare bytes."""

    tiles: Array  # uint8 (L, P)
    start: Array  # int32 (L,): flat cells
    goal: Array  # int32 (L,): a flat cell, -1 where each episode draws one


# One board of options `o`'s generator for each seed of an array: `world.grow`, which plays the world's own reset rule.
Grow = Callable[[Any, Array], Boards]


@functools.lru_cache(maxsize=64)
def shared_boards(o: Any, grow: Grow) -> Boards:
    """What all environments share with options `o`: one board, or its levels, or nothing but a place-holder. `grow` makes
    boards."""
    pad = max(o.view // 2, 1)
    if o.is_fresh:
        return Boards(np.full((1, 1), WALL, np.uint8), np.zeros(1, np.int32), np.zeros(1, np.int32))
    if o.layout in GENERATORS:
        return _levels(o, grow)
    cells = o.cells
    stride = cells.shape[1] + 2 * pad
    flat = padded(codes_of(cells), pad)
    place = {c: [int((y + pad) * stride + x + pad) for y, x in np.argwhere(cells == c)] for c in "SG"}
    if not o.show_goal:
        flat[flat == GOAL] = FLOOR
    first = [np.array(place[c][:1] or [-1], np.int32) for c in "SG"]
    return Boards(flat[None], *first)


def _levels(o: Any, grow: Grow) -> Boards:
    """The boards of a generator that options `o` play: `levels` different ones, or those that come after them.

    Level k comes from the k-th of the seeds that maze_seed gives; boards that were there before are passed over. So the
    training levels do not depend on held_out, and no held-out board is a training board.
    """
    if not o.levels:
        return grow(o, np.array([o.maze_seed], np.uint64))
    wanted, known = o.levels + o.held_out, 0
    found: dict[bytes, int] = {}
    parts: list[Boards] = []
    while len(found) < wanted:
        count = wanted - len(found) + 8
        seeds = copy_seeds(o.maze_seed, known + count)[known:]
        parts.append(grow(o, seeds))
        for n in range(count):
            looks = parts[-1].tiles[n].tobytes() + (b"" if o.start == "random" else parts[-1].start[n].tobytes())
            found.setdefault(looks + (b"" if o.show_goal or o.goal == "random" else parts[-1].goal[n].tobytes()), known + n)
        known += count
        if known > 20 * wanted + 1000:
            raise ValueError(f"maze: only {len(found)} different boards in {known}, {wanted} levels wanted: raise size")
    rows = list(found.values())
    rows = rows[: o.levels] if o.split == "train" else rows[o.levels : wanted]
    return Boards(*(np.ascontiguousarray(np.concatenate(arrays)[rows]) for arrays in zip(*parts, strict=True)))
