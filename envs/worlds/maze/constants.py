"""What the maze's rules receive as `c`."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ....store.arrays import Array
from ...rng import GOLDEN, mix
from .boards import Grow, shared_boards
from .moves import MOVES, distances
from .tiles import CODES, CUE, DECOY, FLOOR, GENERATORS, GOAL, HOLE, partners

SHOWS = ("codes", "rgb", "coordinates")


SHAPINGS = ("none", "manhattan", "distance")


class MazeConstants(NamedTuple):
    plain: bool  # the plain game
    mine: bool  # the plain game on a fresh board each episode
    window: int  # the plain game's; 0 otherwise, and so are span and rim
    span: int
    rim: int
    own: bool  # boards of their own
    shared: int  # how many shared boards
    side: int  # of the window; 0: the whole board
    stride: int
    pad: int
    height: int
    width: int
    kind: int  # number of the generator that works at each reset; -1: none
    rooms: int
    loops: float
    moves: int
    actions: int
    stay: int  # number of the action stay; -1: none
    slip: float
    sticky: float
    hidden: bool  # the goal is no tile
    random_start: bool
    random_goal: bool
    goal_distance: int
    goal_ends: bool
    hole_ends: bool
    cue: int  # flat cell; -1: none
    arms: Array  # int32 (2,): the goals between which the cue tells
    rewards: Array  # float32 (CODES,)
    ends: Array  # bool (CODES,)
    move_cost: float
    shaping: int
    shaping_gamma: float
    shaping_scale: float
    boards: Array  # uint8 (L, P)
    starts: Array  # int32 (L,)
    goals: Array  # int32 (L,)
    free: Array  # int32 (L, F): floor cells
    free_count: Array  # int32 (L,)
    partner: Array  # int32 (P,) or (1,): where teleporters lead
    flip: Array  # uint8 (P,) or (1,): 1 where left and right are swapped
    distance: Array  # float32 (L, P) or (1, 1): moves to the goal
    show: int
    occluded: bool
    sight: Array  # int32 (side * side, side // 2 + 1): a cell of the window and the cells before it, then -1
    before: Array  # uint64 (side * side,): bits of the cells on the line to each cell; side <= 7
    has_keys: bool


@functools.lru_cache(maxsize=64)
def constants(o: Any, grow: Grow) -> MazeConstants:
    height, width, pad = o.shape
    stride = width + 2 * pad
    boards, cells, plain, actions = shared_boards(o, grow), o.cells, o.plain, o.num_actions
    flat = boards.tiles[0]
    rewards = np.full(CODES, o.step_reward, np.float32)
    rewards[GOAL], rewards[HOLE], rewards[DECOY] = o.goal_reward, o.hole_reward, o.hole_reward
    ends = np.zeros(CODES, np.bool_)
    ends[GOAL], ends[HOLE], ends[DECOY] = o.goal_ends, o.hole_ends, True
    free, free_count = np.zeros((1, 1), np.int32), np.zeros(1, np.int32)
    if o.start == "random" or o.goal == "random":
        floors = [np.flatnonzero(board == FLOOR) for board in boards.tiles]
        if o.goal == "layout":
            floors = [cells_[cells_ != goal] for cells_, goal in zip(floors, boards.goal, strict=True)]
        free_count = np.array([len(f) for f in floors], np.int32)
        free = np.zeros((len(floors), max(1, int(free_count.max()))), np.int32)
        for row, f in zip(free, floors, strict=True):
            row[: len(f)] = f
    cue = np.flatnonzero(flat == CUE)
    partner, flip, distance = np.zeros(1, np.int32), np.zeros(len(flat), np.uint8), np.zeros((1, 1), np.float32)
    if cells is not None:
        partner = np.array(partners(flat.tobytes()), np.int32)
    if o.goal == "random" and o.goal_distance and not o.is_fresh:
        for start, count, cells_of in zip(boards.start, free_count, free, strict=True):
            y, x = np.divmod(cells_of[:count].astype(np.int64), stride)
            begin = np.array([start]) if o.start != "random" else cells_of[:count].astype(np.int64)
            rows, columns = np.divmod(begin, stride)
            reach = np.max([rows - y.min(), y.max() - rows, columns - x.min(), x.max() - columns], 0).min()
            if reach < o.goal_distance:
                raise ValueError(f"goal_distance is {o.goal_distance}: from some start no floor cell is farther than {reach}")
    if o.scramble:
        with np.errstate(over="ignore"):
            flip = (mix(np.uint64(o.maze_seed) + np.arange(len(flat), dtype=np.uint64) * GOLDEN) & np.uint64(1)).astype(
                np.uint8
            )
    if o.shaping == "distance":
        distance = np.stack(
            [distances(b, np.flatnonzero(b == GOAL) if o.show_goal else np.array([g]), stride, o.moves)
             for b, g in zip(boards.tiles, boards.goal, strict=True)]
        )  # fmt: skip
    return MazeConstants(
        plain=plain, mine=bool(plain and o.is_fresh), window=o.view if plain else 0, span=stride if plain else 0,
        rim=pad if plain else 0, own=o.own_boards, shared=len(boards.tiles), side=o.view, stride=stride, pad=pad, height=height,
        width=width, kind=GENERATORS.index(o.layout) if o.is_fresh else -1, rooms=o.rooms, loops=float(o.loops),
        moves=MOVES.index(o.moves), actions=actions, stay=actions - 1 if o.stay else -1, slip=float(o.slip),
        sticky=float(o.sticky), hidden=not o.show_goal, random_start=o.start == "random" and not o.is_fresh,
        random_goal=o.goal == "random" and not o.is_fresh, goal_distance=o.goal_distance, goal_ends=o.goal_ends,
        hole_ends=o.hole_ends, cue=int(cue[0]) if len(cue) else -1,
        arms=np.flatnonzero(flat == GOAL).astype(np.int32)[:2] if len(cue) else np.zeros(2, np.int32),
        rewards=rewards, ends=ends, move_cost=float(o.move_cost), shaping=SHAPINGS.index(o.shaping),
        shaping_gamma=float(o.shaping_gamma), shaping_scale=float(o.shaping_scale), boards=boards.tiles, starts=boards.start,
        goals=boards.goal, free=free, free_count=free_count, partner=partner, flip=flip, distance=distance,
        show=SHOWS.index(o.observe), occluded=o.occlusion, sight=_sight(o.view), before=_before(o.view), has_keys=o.has_keys,
    )  # fmt: skip


def _sight(side: int) -> Array:
    """int32 (side * side, side // 2 + 1): cells of a window, the outermost first; the cells on the line to each; -1.

    The line to (dy, dx) passes, for t = 1..n-1 with n = max(|dy|, |dx|), through (dy t / n, dx t / n), rounded to the
    nearest cell and half away from zero.
    """
    half = side // 2
    table = np.full((max(1, side * side), half + 1), -1, np.int32)
    offsets = [(y, x) for y in range(-half, half + 1) for x in range(-half, half + 1)] if side else []
    for row, (dy, dx) in zip(table, sorted(offsets, key=lambda p: -max(abs(p[0]), abs(p[1]))), strict=False):
        n = max(abs(dy), abs(dx))
        row[0] = (dy + half) * side + dx + half
        for t in range(1, n):
            y, x = (int(math.copysign((2 * abs(v) * t + n) // (2 * n), v)) for v in (dy, dx))
            row[t] = (y + half) * side + x + half
    return table


def _before(side: int) -> Array:
    """The lines of `_sight` as bits: uint64 (side * side,); all zero where a window has more than 64 cells."""
    bits = np.zeros(max(1, side * side), np.uint64)
    if 0 < side <= 8:
        for row in _sight(side).tolist():
            bits[row[0]] = sum(1 << cell for cell in row[1:] if cell >= 0)
    return bits
