"""Generators of boards, as helpers that rules call inside a reset: they allocate nothing.

A board is a flat uint8 array whose rows are `stride` apart, with a rim of walls `pad` cells wide around size x size cells.
Where an algorithm needs a list (Prim's frontier, the queue of a flood fill) the caller lends `scratch`, one row of an
int32 array with `scratch_size` entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ....store.arrays import Array
from ...grid import DX, DY, STAY
from ...rng import below, bits, unit
from ...world import helper
from .tiles import BRAIDED, CAVES, DOOR, DOOR_KEY, FLOOR, KEY, OPEN, PRIM, ROOMS, WALL, WILSON

UNVISITED, FRONTIER, MARK = 255, 254, 32  # while a generator works; MARK + direction: how a room was entered
SIXTEEN, TWELVE, FOUR_DRAWS = np.uint64(16), np.uint64(12), np.uint64(0xFFFF)


def _choices() -> Array:
    """uint8 (16, 12): entry [m, r] is one of the directions in the set m, each for equally many r (m = 0: none)."""
    table = np.zeros((16, 12), np.uint8)
    for m in range(1, 16):
        members = [d for d in range(4) if m >> d & 1]
        table[m] = np.repeat(members, 12 // len(members))
    return table


PICK = _choices()


@helper
def carve_maze(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int) -> None:
    """A perfect maze (a spanning tree of its rooms) by randomised depth-first search.

    Rooms are the cells with odd row and column. The way back is kept in the rooms themselves, so there is no stack.
    """
    rooms = _blank(tiles, stride, pad, size)
    here = _room(stride, pad, rooms, below(rng, i, rooms * rooms))
    tiles[here] = MARK + STAY
    word, left = np.uint64(0), 0
    while True:
        m = (
            (tiles[np.uint64(here - 2)] == UNVISITED)  # unsigned: an index that cannot wrap around
            | ((tiles[np.uint64(here + 2 * stride)] == UNVISITED) << 1)
            | ((tiles[np.uint64(here + 2)] == UNVISITED) << 2)
            | ((tiles[np.uint64(here - 2 * stride)] == UNVISITED) << 3)
        )
        if m != 0:
            if left == 0:
                word, left = bits(rng, i), 4
            d = PICK[m, ((word & FOUR_DRAWS) * TWELVE) >> SIXTEEN]
            word, left = word >> SIXTEEN, left - 1
            step = DY[d] * stride + DX[d]
            tiles[np.uint64(here + step)] = FLOOR
            here += 2 * step
            tiles[np.uint64(here)] = MARK + d
        else:
            back = tiles[np.uint64(here)] - MARK
            tiles[np.uint64(here)] = FLOOR
            if back == STAY:
                return
            here -= 2 * (DY[back] * stride + DX[back])


@helper
def _fill(tiles: Array, stride: int, pad: int, size: int, code: int) -> None:
    """The whole square in one code."""
    for y in range(size):
        at = (y + pad) * stride + pad
        for x in range(size):
            tiles[at + x] = code


@helper
def _blank(tiles: Array, stride: int, pad: int, size: int) -> int:
    """Walls everywhere and UNVISITED rooms; returns how many rooms a side has."""
    _fill(tiles, stride, pad, size, WALL)
    for y in range(1, size, 2):
        at = (y + pad) * stride + pad
        for x in range(1, size, 2):
            tiles[at + x] = UNVISITED
    return (size - 1) // 2


@helper
def _room(stride: int, pad: int, rooms: int, number: int) -> int:
    """Flat cell of room `number`, row by row."""
    return (2 * (number // rooms) + 1 + pad) * stride + 2 * (number % rooms) + 1 + pad


@helper
def pick(rng: Array, i: int, m: int) -> int:
    """One of the directions in the set m (bit d for direction d; not empty), one draw."""
    return PICK[m, below(rng, i, 12)]


@helper
def _around(tiles: Array, here: int, stride: int, code: int, far: int) -> int:
    """Set of the directions in which the tile `far` cells away is `code`."""
    return (
        (tiles[here - far] == code)
        | ((tiles[here + far * stride] == code) << 1)
        | ((tiles[here + far] == code) << 2)
        | ((tiles[here - far * stride] == code) << 3)
    )


@helper
def grow_prim(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, scratch: Array) -> None:
    """A perfect maze by Prim's algorithm over rooms: a random room of the frontier joins the maze, by a random door."""
    rooms = _blank(tiles, stride, pad, size)
    here = _room(stride, pad, rooms, below(rng, i, rooms * rooms))
    tiles[here] = FLOOR
    n = 0
    while True:
        for d in range(4):
            there = here + 2 * (DY[d] * stride + DX[d])
            if tiles[there] == UNVISITED:
                tiles[there] = FRONTIER
                scratch[n] = there
                n += 1
        if n == 0:
            return
        k = below(rng, i, n)
        here = np.int64(scratch[k])  # type: ignore[assignment]
        n -= 1
        scratch[k] = scratch[n]
        d = pick(rng, i, _around(tiles, here, stride, FLOOR, 2))
        tiles[here + DY[d] * stride + DX[d]] = FLOOR
        tiles[here] = FLOOR


@helper
def walk_wilson(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int) -> None:
    """A perfect maze, uniform over all spanning trees of the rooms (Wilson 1996): loop-erased random walks.

    Each room remembers the direction in which the walk last left it, which is what erasing loops leaves over.
    """
    rooms = _blank(tiles, stride, pad, size)
    tiles[_room(stride, pad, rooms, below(rng, i, rooms * rooms))] = FLOOR
    for number in range(rooms * rooms):
        begin = _room(stride, pad, rooms, number)
        here = begin
        while tiles[here] != FLOOR:
            d = pick(rng, i, 15 - _around(tiles, here, stride, WALL, 2))  # outside the rooms all is wall
            tiles[here] = MARK + d
            here += 2 * (DY[d] * stride + DX[d])
        here = begin
        while tiles[here] != FLOOR:
            d = tiles[here] - MARK
            step = DY[d] * stride + DX[d]
            tiles[here] = FLOOR
            tiles[here + step] = FLOOR
            here += 2 * step


@helper
def braid(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, share: float) -> None:
    """Open each dead end of a maze with probability `share`, through a random one of its walls to another room."""
    rooms = (size - 1) // 2
    for number in range(rooms * rooms):
        here = _room(stride, pad, rooms, number)
        closed = _around(tiles, here, stride, WALL, 1)
        open_ = 15 - closed
        if (open_ & (open_ - 1)) == 0 and unit(rng, i) < share:
            way = closed & _around(tiles, here, stride, FLOOR, 2)
            if way != 0:
                d = pick(rng, i, way)
                tiles[here + DY[d] * stride + DX[d]] = FLOOR


@helper
def build_rooms(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, side: int, share: float) -> None:
    """side x side rooms; doorways, one cell wide, along a random spanning tree, and with probability `share` elsewhere.

    The tree grows by depth-first search. A room's upper left cell holds its mark meanwhile.
    """
    _fill(tiles, stride, pad, size, WALL)
    for a in range(side):
        for b in range(side):
            for y in range(a * (size - 1) // side + 1, (a + 1) * (size - 1) // side):
                for x in range(b * (size - 1) // side + 1, (b + 1) * (size - 1) // side):
                    tiles[(y + pad) * stride + x + pad] = FLOOR
            tiles[_corner(stride, pad, size, side, a, b)] = UNVISITED
    a, b = below(rng, i, side), below(rng, i, side)
    tiles[_corner(stride, pad, size, side, a, b)] = MARK + STAY
    while True:
        m = 0
        for d in range(4):
            if 0 <= a + DY[d] < side and 0 <= b + DX[d] < side:
                if tiles[_corner(stride, pad, size, side, a + DY[d], b + DX[d])] == UNVISITED:
                    m |= 1 << d
        here = _corner(stride, pad, size, side, a, b)
        if m != 0:
            d = np.int64(pick(rng, i, m))  # type: ignore[assignment]
            _doorway(tiles, stride, pad, size, rng, i, side, a, b, d)
            a, b = a + DY[d], b + DX[d]
            tiles[_corner(stride, pad, size, side, a, b)] = MARK + d
        else:
            d = np.int64(tiles[here]) - MARK  # type: ignore[assignment]
            tiles[here] = FLOOR
            if d == STAY:
                break
            a, b = a - DY[d], b - DX[d]
    if share > 0.0:
        for a in range(side):
            for b in range(side):
                for d in range(1, 3):  # down and right: each wall once
                    if a + DY[d] < side and b + DX[d] < side and unit(rng, i) < share:
                        if _walled(tiles, stride, pad, size, side, a, b, d):
                            _doorway(tiles, stride, pad, size, rng, i, side, a, b, d)


@helper
def _corner(stride: int, pad: int, size: int, side: int, a: int, b: int) -> int:
    """Flat upper left cell of room (a, b)."""
    return (a * (size - 1) // side + 1 + pad) * stride + b * (size - 1) // side + 1 + pad


@helper
def _walled(tiles: Array, stride: int, pad: int, size: int, side: int, a: int, b: int, d: int) -> bool:
    """Whether the wall below (d = 1) or right (d = 2) of room (a, b) has no doorway yet."""
    if d == 1:
        at, step = _corner(stride, pad, size, side, a + 1, b) - stride, 1
        cells = (b + 1) * (size - 1) // side - b * (size - 1) // side - 1
    else:
        at, step = _corner(stride, pad, size, side, a, b + 1) - 1, stride
        cells = (a + 1) * (size - 1) // side - a * (size - 1) // side - 1
    for n in range(cells):
        if tiles[at + n * step] != WALL:
            return False
    return True


@helper
def _doorway(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, side: int, a: int, b: int, d: int) -> None:
    """A doorway at a random place of the wall of room (a, b) in direction d."""
    top, bottom = a * (size - 1) // side, (a + 1) * (size - 1) // side
    left, right = b * (size - 1) // side, (b + 1) * (size - 1) // side
    if DY[d] != 0:
        y = bottom if DY[d] > 0 else top
        x = left + 1 + below(rng, i, right - left - 1)
    else:
        x = right if DX[d] > 0 else left
        y = top + 1 + below(rng, i, bottom - top - 1)
    tiles[(y + pad) * stride + x + pad] = FLOOR


@helper
def grow_caves(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, scratch: Array) -> None:
    """Caves (Johnson, Yannakakis & Togelius 2010): random walls, four rounds of majority, the largest cave stays.

    A cell becomes a wall where 5 or more of the 9 cells around and including it are walls. Boards whose largest cave has
    less than a quarter of the inside are thrown away; after 16 of them the room is left open.
    """
    inside = (size - 2) * (size - 2)
    for _ in range(16):
        _fill(tiles, stride, pad, size, WALL)
        for y in range(1, size - 1):
            for x in range(1, size - 1):
                tiles[(y + pad) * stride + x + pad] = WALL if unit(rng, i) < 0.42 else FLOOR
        for _round in range(4):
            for y in range(1, size - 1):
                for x in range(1, size - 1):  # bit 0 is now, bit 1 the next round
                    here = (y + pad) * stride + x + pad
                    walls = 0
                    for dy in range(-1, 2):
                        for dx in range(-1, 2):
                            walls += tiles[here + dy * stride + dx] & 1
                    if walls >= 5:
                        tiles[here] = tiles[here] | 2
            for y in range(1, size - 1):
                for x in range(1, size - 1):
                    here = (y + pad) * stride + x + pad
                    tiles[here] = tiles[here] >> 1
        if _largest(tiles, stride, pad, size, scratch) * 4 >= inside:
            return
    open_room(tiles, stride, pad, size)


@helper
def _largest(tiles: Array, stride: int, pad: int, size: int, scratch: Array) -> int:
    """Wall up all floor but the largest connected part; returns its cells. Flood fill, the queue in `scratch`."""
    best, root = 0, 0
    for y in range(1, size - 1):
        for x in range(1, size - 1):
            here = (y + pad) * stride + x + pad
            if tiles[here] == FLOOR:
                count = _flood(tiles, stride, here, FLOOR, UNVISITED, scratch)
                if count > best:
                    best, root = count, here
    if best > 0:
        _flood(tiles, stride, root, UNVISITED, FRONTIER, scratch)
    for y in range(1, size - 1):
        for x in range(1, size - 1):
            here = (y + pad) * stride + x + pad
            tiles[here] = FLOOR if tiles[here] == FRONTIER else WALL
    return best


@helper
def _flood(tiles: Array, stride: int, begin: int, old: int, new: int, scratch: Array) -> int:
    """Turn the connected `old` cells around `begin` into `new`; returns how many."""
    scratch[0] = begin
    tiles[begin] = new
    head, tail = 0, 1
    while head < tail:
        here = np.int64(scratch[head])
        head += 1
        for d in range(4):
            there = here + DY[d] * stride + DX[d]
            if tiles[there] == old:
                tiles[there] = new
                scratch[tail] = there
                tail += 1
    return tail


@helper
def open_room(tiles: Array, stride: int, pad: int, size: int) -> None:
    """Floor with walls around."""
    _fill(tiles, stride, pad, size, WALL)
    for y in range(1, size - 1):
        for x in range(1, size - 1):
            tiles[(y + pad) * stride + x + pad] = FLOOR


@helper
def build_door_key(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int) -> int:
    """A wall with a locked door parts the room; the key lies on the left (MiniGrid's DoorKey). Returns the wall's column."""
    open_room(tiles, stride, pad, size)
    split = 2 + below(rng, i, size - 4)
    for y in range(1, size - 1):
        tiles[(y + pad) * stride + split + pad] = WALL
    tiles[(1 + below(rng, i, size - 2) + pad) * stride + split + pad] = DOOR
    key = below(rng, i, (size - 2) * (split - 1))
    tiles[(1 + key // (split - 1) + pad) * stride + 1 + key % (split - 1) + pad] = KEY
    return split


@helper
def scratch_size(kind: int, size: int) -> int:
    """Entries of `scratch` that a generator needs."""
    return size * size if kind in (PRIM, CAVES) else 1


@helper
def floor_cell(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, besides: int, last: int) -> int:
    """A random floor cell, uniform over those in columns 0..last-1 that are not `besides` (a flat cell, or -1); one draw."""
    count = 0
    for y in range(1, size - 1):
        at = (y + pad) * stride + pad
        for x in range(1, last):
            count += tiles[at + x] == FLOOR and at + x != besides
    k = below(rng, i, count)
    for y in range(1, size - 1):
        at = (y + pad) * stride + pad
        for x in range(1, last):
            if tiles[at + x] == FLOOR and at + x != besides:
                if k == 0:
                    return at + x
                k -= 1
    return -1  # there are two floor cells at least


@helper
def generate(tiles: Array, stride: int, pad: int, size: int, rng: Array, i: int, scratch: Array, c: Any) -> tuple[int, int]:
    """A new board of generator number `c.kind` and where start and goal are: two different flat cells.

    `c.rooms` a side and a share `c.loops` of loops are for those that have them.
    """
    if c.kind <= BRAIDED:
        if c.kind == PRIM:
            grow_prim(tiles, stride, pad, size, rng, i, scratch)
        elif c.kind == WILSON:
            walk_wilson(tiles, stride, pad, size, rng, i)
        else:
            carve_maze(tiles, stride, pad, size, rng, i)
        if c.kind == BRAIDED:
            braid(tiles, stride, pad, size, rng, i, c.loops)
        side = (size - 1) // 2
        start = below(rng, i, side * side)
        goal = below(rng, i, side * side - 1)
        goal += goal >= start  # uniform over the other rooms
        return _room(stride, pad, side, start), _room(stride, pad, side, goal)
    last = size - 1
    if c.kind == ROOMS:
        build_rooms(tiles, stride, pad, size, rng, i, c.rooms, c.loops)
    elif c.kind == CAVES:
        grow_caves(tiles, stride, pad, size, rng, i, scratch)
    elif c.kind == OPEN:
        open_room(tiles, stride, pad, size)
    else:
        last = build_door_key(tiles, stride, pad, size, rng, i)
    start = floor_cell(tiles, stride, pad, size, rng, i, -1, last)
    if c.kind == DOOR_KEY:
        return start, (size - 2 + pad) * stride + size - 2 + pad
    return start, floor_cell(tiles, stride, pad, size, rng, i, start, last)
