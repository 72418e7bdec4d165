"""What all copies of a maze share: its boards or levels, and the constants of its rules."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ...core import Array
from ...rng import GOLDEN, copy_seeds, fresh_streams, mix
from .moves import MOVES, distances
from .tiles import CODES, CUE, DECOY, FLOOR, GENERATORS, GOAL, HOLE, WALL, codes_of, padded, partners

SHOWS = ("codes", "rgb", "coordinates")
SHAPINGS = ("none", "manhattan", "distance")


class Boards(NamedTuple):
    """The boards that all copies share: L levels, P padded cells each and 7 spare bytes."""

    tiles: Array  # uint8 (L, P)
    start: Array  # int32 (L,): flat cells
    goal: Array  # int32 (L,): a flat cell, -1 where each episode draws one


class Constants(NamedTuple):
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
def shared_boards(o: Any) -> Boards:
    """What all copies share with options `o`: one board, or its levels, or nothing but a place-holder."""
    pad = max(o.view // 2, 1)
    if o.is_fresh:
        return Boards(np.full((1, 1), WALL, np.uint8), np.zeros(1, np.int32), np.zeros(1, np.int32))
    if o.layout in GENERATORS:
        return _levels(o)
    cells = o.cells
    stride = cells.shape[1] + 2 * pad
    flat = padded(codes_of(cells), pad)
    place = {c: [int((y + pad) * stride + x + pad) for y, x in np.argwhere(cells == c)] for c in "SG"}
    if not o.show_goal:
        flat[flat == GOAL] = FLOOR
    first = [np.array(place[c][:1] or [-1], np.int32) for c in "SG"]
    return Boards(flat[None], *first)


def _levels(o: Any) -> Boards:
    """The boards of a generator that options `o` play: `levels` different ones, or those that come after them.

    Level k comes from the k-th of the seeds that maze_seed gives; boards that were there before are passed over. So the
    training levels do not depend on held_out, and no held-out board is a training board.
    """
    if not o.levels:
        return _grown(o, np.array([o.maze_seed], np.uint64))
    wanted, known = o.levels + o.held_out, 0
    found: dict[bytes, int] = {}
    parts: list[Boards] = []
    while len(found) < wanted:
        count = wanted - len(found) + 8
        seeds = copy_seeds(o.maze_seed, known + count)[known:]
        parts.append(_grown(o, seeds))
        for n in range(count):
            looks = parts[-1].tiles[n].tobytes() + (b"" if o.start == "random" else parts[-1].start[n].tobytes())
            found.setdefault(looks + (b"" if o.show_goal or o.goal == "random" else parts[-1].goal[n].tobytes()), known + n)
        known += count
        if known > 20 * wanted + 1000:
            raise ValueError(f"maze: only {len(found)} different boards in {known}, {wanted} levels wanted: raise size")
    rows = list(found.values())
    rows = rows[: o.levels] if o.split == "train" else rows[o.levels : wanted]
    return Boards(*(np.ascontiguousarray(np.concatenate(arrays)[rows]) for arrays in zip(*parts, strict=True)))


def _grown(o: Any, seeds: Array) -> Boards:
    """One board of the generator for each seed. The rules that make fresh boards make them: compiled, where it is many."""
    from .world import Maze

    fresh = type(o)(layout=o.layout, size=o.size, rooms=o.rooms, loops=o.loops, view=o.view, observe="coordinates")
    world = Maze(fresh)
    if len(seeds) > 16:
        from ...engine import Engine

        engine = Engine(world, len(seeds), threads=1)
        engine.reset(seeds)
        s = engine.state
    else:
        s, c, rng = world.allocate(len(seeds)), world.constants(), fresh_streams(seeds)
        with np.errstate(over="ignore"):
            for i in range(len(seeds)):
                Maze.reset(s, i, c, rng)
    if o.goal == "random" or not o.show_goal:
        s.tiles[np.arange(len(seeds)), s.goal] = FLOOR
    return Boards(s.tiles, s.start, s.goal)


@functools.lru_cache(maxsize=64)
def constants(o: Any) -> Constants:
    height, width, pad = o.shape
    stride = width + 2 * pad
    boards, cells, plain, actions = shared_boards(o), o.cells, o.plain, o.num_actions
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
    return Constants(
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


# --- the moves once more, over whole boards at a time: for exact models
