"""Where moves lead: the directions, what each tile lets in, and the moves of whole boards at a time, for exact models."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....store.arrays import Array
from .tiles import CODES, DOOR, FLOOR, HOLE, ICE, KEY, ONE_WAY, TELEPORT, WALL, partners

MOVES = ("four", "eight", "turn", "fall")
FOUR, EIGHT, TURN, FALL = range(4)
# Eight directions, counted as the four of grid.py are, with the diagonals between: 0 left, 1 down and left, 2 down, ...
DOWN_LEFT, STRAIGHT, DOWN_RIGHT = 1, 2, 3
ROW = np.array([0, 1, 1, 1, 0, -1, -1, -1])
COLUMN = np.array([-1, -1, 0, 1, 1, 1, 0, -1])


def _doors() -> Array:
    """uint8 (CODES,): bit d is set where a move in direction d may enter the tile. One-way: along the arrow, or half."""
    enter = np.full(CODES, 255, np.uint8)
    enter[WALL] = 0
    for d in range(4):
        enter[ONE_WAY + d] = sum(1 << ((2 * d + side) % 8) for side in (-1, 0, 1))
    return enter


ENTER = _doors()


class Sets:
    """The boards that play can lead to: keys taken, doors opened."""

    def __init__(self, board: Array, keys: int) -> None:
        self.boards, self.keys = [board], [keys]
        self._known = {(board.tobytes(), keys): 0}

    def after(self, at: int, cell: int) -> int:
        """Number of the board on which the key or door at `cell` of board `at` is gone."""
        board = self.boards[at].copy()
        keys = self.keys[at] + (1 if board[cell] == KEY else -1)
        board[cell] = FLOOR
        number = self._known.setdefault((board.tobytes(), keys), len(self.boards))
        if number == len(self.boards):
            self.boards.append(board)
            self.keys.append(keys)
        return number


def intended(c: Any, cells: Array, action: int, heading: int) -> list[tuple[int, Array, float, Array]]:
    """What an action can come to: (heading afterwards, directions (S,), probability, cost (S,)), three where moves slip."""
    cost = np.zeros(len(cells))
    d = np.full(len(cells), 2 * action)
    if c.moves == EIGHT:
        d[:] = action
    elif c.moves == TURN:
        if action != 2:
            d[:] = -1
            heading = (heading + (1, 3)[action]) % 4 if action < 2 else heading
        else:
            d[:] = 2 * heading
    elif c.moves == FALL:
        right = c.flip[cells] != action
        d, cost = np.where(right, DOWN_RIGHT, DOWN_LEFT), c.move_cost * right
    if action == c.stay:
        d[:] = -1
    if not c.slip:
        return [(heading, d, 1.0, cost)]
    sides = (4 - d, 4 - d) if c.moves == FALL else tuple((d + s * (1 if c.moves == EIGHT else 2)) % 8 for s in (1, -1))
    still = d < 0
    return [(heading, d, 1 - c.slip, cost)] + [(heading, np.where(still, -1, side), c.slip / 2, cost) for side in sides]


def slide(board: Array, keys: int, stride: int, partner: Array, cells: Array, d: Array, fall: bool) -> Array:
    """Flat cells (S,) in which moves in directions `d` (S,) from `cells` (S,) end; d = -1 stays."""

    def closed(to: Array) -> Array:
        tile = board[to]
        return ((ENTER[tile] >> np.maximum(d, 0)) & 1 == 0) | ((tile == DOOR) & (keys == 0))

    step = np.where(d < 0, 0, ROW[d] * stride + COLUMN[d])
    if fall:
        d = np.where(closed(cells + step), STRAIGHT, d)
        step = ROW[d] * stride + COLUMN[d]
    moved = (d >= 0) & ~closed(cells + step)
    at = np.where(moved, cells + step, cells)
    sliding = moved & (board[at] == ICE)
    while sliding.any():
        sliding &= ~closed(at + step)
        at = np.where(sliding, at + step, at)
        sliding &= board[at] == ICE
    port = moved & (board[at] >= TELEPORT) & (board[at] < TELEPORT + 4)
    return np.where(port, partner[np.where(port, at, 0)], at)


def distances(board: Array, goals: Array, stride: int, moves: str, keys: int = 1) -> Array:
    """float32 (P,): fewest moves from each cell to the nearest of the flat cells `goals`; the board's size without a way.

    With `keys` all doors are open. No way leads through a hole.
    """
    partner = np.array(partners(board.tobytes()), np.int64)
    cells = np.flatnonzero((board != WALL) & (board != HOLE))
    far = np.full(len(board), float(len(board)))
    far[goals] = 0
    ways = range(8) if moves == "eight" else (DOWN_LEFT, DOWN_RIGHT) if moves == "fall" else range(0, 8, 2)
    to = np.stack([slide(board, keys, stride, partner, cells, np.full(len(cells), d), moves == "fall") for d in ways])
    while True:
        nearer = np.minimum(far[cells], 1 + far[to].min(0))
        if (nearer == far[cells]).all():
            return far.astype(np.float32)
        far[cells] = nearer


def manhattan(goal: int, stride: int, size: int) -> Array:
    """float64 (P,): rows and columns between each cell and the goal."""
    cells = np.arange(size)
    return np.asarray(abs(cells // stride - goal // stride) + abs(cells % stride - goal % stride), np.float64)
