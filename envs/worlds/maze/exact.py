"""Exact models of mazes, and how well a hidden goal can be looked for."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ....store.arrays import Array
from ...solvers.search import best_search
from ...world import Model
from .boards import Grow
from .config import MODEL_STATES
from .constants import MazeConstants, constants
from .moves import COLUMN, ENTER, ROW, Sets, intended, manhattan, slide
from .tiles import DOOR, FLOOR, GOAL, HOLE, KEY, WALL


def model_of(o: Any, c: MazeConstants, board: Array, s: Any, i: int) -> Model | None:
    """Model of environment `i`'s episode with options `o` and constants `c`; `board`: its flat board, uint8 (P,), rim and spare
    bytes included.

    States: cells that are no walls, times heading, action before and which keys and doors are left, where they matter.

    Goals and holes that end the episode are entered, never left.
    """
    if not o.solved_by_model:
        return None
    actions, keys = o.num_actions, int(s.keys[i])
    cells = np.flatnonzero(board != WALL)
    index = np.full(len(board), -1)
    index[cells] = np.arange(len(cells))
    headings = np.arange(4) if o.moves == "turn" else np.array([int(s.heading[i])])
    lasts = np.arange(-1, actions) if o.sticky else np.array([int(s.last[i])])
    each = len(cells)
    blocks = len(headings) * len(lasts)
    sets = Sets(board, keys)
    outcomes = (3 if o.slip else 1) * (2 if o.sticky else 1)
    tables: list[tuple[Array, ...]] = []
    at = 0
    while at < len(sets.boards):  # grows as keys are taken and doors opened
        lands: dict[tuple[bytes, bytes], tuple[Array, ...]] = {}
        shape = (len(headings), len(lasts), each, actions, outcomes)
        to, p, r, end = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape), np.zeros(shape, np.bool_)
        for h, heading in enumerate(headings):
            for last_index, last in enumerate(lasts):
                for a in range(actions):
                    chosen = [(a, 1.0)] if not o.sticky or last < 0 else [(a, 1 - o.sticky), (int(last), o.sticky)]
                    for k, (did, share) in enumerate(chosen):
                        for n, (where, d, q, cost) in enumerate(intended(c, cells, did, int(heading))):
                            key = (d.tobytes(), cost.tobytes())
                            if key not in lands:
                                lands[key] = _land(o, s, i, c, sets, at, cells, d)
                            cell, then, paid, over = lands[key]
                            h2 = where if o.moves == "turn" else 0
                            last2 = did + 1 if o.sticky else 0
                            slot = k * (3 if o.slip else 1) + n
                            place = (h, last_index, slice(None), a, slot)
                            to[place] = ((then * len(headings) + h2) * len(lasts) + last2) * each + index[cell]
                            p[place], r[place], end[place] = q * share, paid - cost, over
        tables.append((to, p, r, end))
        at += 1
        if at * blocks * each > MODEL_STATES:
            return None
    size = (len(tables) * blocks * each, actions, outcomes)
    next_state, probability, reward, terminated = (np.concatenate(t).reshape(size) for t in zip(*tables, strict=True))
    fields = {"cell": np.tile(cells, len(tables) * blocks).astype(np.int32)}
    if o.moves == "turn":
        fields["heading"] = np.tile(np.repeat(headings, len(lasts) * each), len(tables)).astype(np.int8)
    if o.sticky:
        fields["last"] = np.tile(np.repeat(lasts, each), len(tables) * len(headings)).astype(np.int8)
    if len(tables) > 1:
        fields["tiles"] = np.repeat(np.array(sets.boards), blocks * each, axis=0)
        fields["keys"] = np.repeat(np.array(sets.keys, np.int8), blocks * each)
    start = index[s.cell[i]]
    if o.moves == "turn":
        start += int(s.heading[i]) * len(lasts) * each
    if o.sticky:
        start += (int(s.last[i]) + 1) * each
    legal = None
    if o.mask_walls:
        legal = np.concatenate([
            np.concatenate([np.tile(_legal(o, c, sets, at, cells, int(heading)), (len(lasts), 1)) for heading in headings])
            for at in range(len(sets.boards))
        ])  # fmt: skip
    return Model(next_state, probability, reward, terminated, int(start), fields, legal)


def _legal(o: Any, c: MazeConstants, sets: Sets, at: int, cells: Array, heading: int) -> Array:
    """What `Maze.legal` says in cells (S,) of board `at`, bool (S, actions)."""
    tiles, held = sets.boards[at], sets.keys[at]
    legal = np.ones((len(cells), o.num_actions), np.bool_)
    for a in range(o.num_actions):
        d = intended(c, cells, a, heading)[0][1]
        tile = tiles[cells + np.where(d < 0, 0, ROW[d] * c.stride + COLUMN[d])]
        legal[:, a] = (d < 0) | ((ENTER[tile] >> np.maximum(d, 0)) & 1 == 1) & ((tile != DOOR) | (held > 0))
    legal[~legal.any(1)] = True
    return legal


def _land(o: Any, s: Any, i: int, c: MazeConstants, sets: Sets, at: int, cells: Array, d: Array) -> tuple[Array, ...]:
    """Where moves in directions `d` (S,), -1 to stay, end: cells, numbers in `sets`, rewards and ends, (S,) each."""
    tiles, held = sets.boards[at], sets.keys[at]
    cell = slide(tiles, held, c.stride, c.partner, cells, d, o.moves == "fall")
    tile = tiles[cell].astype(np.int64)
    then = np.full(len(cells), at)
    for n in np.flatnonzero(((tile == KEY) | (tile == DOOR)) & (cell != cells)):
        then[n] = sets.after(at, int(cell[n]))
    if c.hidden:
        tile = np.where(cell == s.goal[i], GOAL, tile)
    paid, over = c.rewards[tile].astype(np.float64), c.ends[tile]
    if not o.hole_ends:
        cell = np.where(tile == HOLE, s.start[i], cell)
    if c.shaping:
        far = manhattan(int(s.goal[i]), c.stride, len(tiles)) if c.shaping == 1 else c.distance[s.level[i]]
        paid = paid + c.shaping_scale * (far[cells] - np.where(over, 0, c.shaping_gamma * far[cell]))
    return cell, then, paid, over


@functools.lru_cache(maxsize=16)
def searched(o: Any, grow: Grow) -> tuple[float, float, float]:
    """Return of random actions, of the best search found, and a bound on the best; on average over goals."""
    c = constants(o, grow)
    board, begin = c.boards[0], int(c.starts[0])
    cells = np.flatnonzero(board != WALL)
    index = np.full(len(board), -1)
    index[cells] = np.arange(len(cells))
    to = [slide(board, 0, c.stride, c.partner, cells, intended(c, cells, a, 2)[0][1], False) for a in range(c.actions)]
    neighbours = index[np.stack(to, 1)]
    rows, columns = abs(cells // c.stride - begin // c.stride), abs(cells % c.stride - begin % c.stride)
    prior = ((board[cells] == FLOOR) & (np.maximum(rows, columns) >= o.goal_distance)).astype(np.float64)
    prior /= prior.sum()
    found = best_search(neighbours, int(index[begin]), prior, o.time_limit, hit=o.goal_reward, miss=o.step_reward)
    at, random = np.zeros(len(cells)), 0.0
    at[index[begin]] = 1.0
    for _ in range(o.time_limit):
        at = np.bincount(neighbours.ravel(), np.repeat(at / c.actions, c.actions), len(cells))  # type: ignore[assignment]
        random += float(at @ (prior * o.goal_reward + (1 - prior) * o.step_reward))
    return random, float(found.value), float(found.bound)
