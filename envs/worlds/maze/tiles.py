"""Tiles, and boards of tiles drawn in ASCII."""

from __future__ import annotations

import functools

import numpy as np

from ....store.arrays import Array

# What a board holds. The first four and AGENT are old friends: networks trained on them still read them.
FLOOR, WALL, GOAL, HOLE, AGENT, ICE = 0, 1, 2, 3, 4, 5
ONE_WAY = 6  # 6..9: left, down, right, up
TELEPORT = 10  # 10..13: pairs of cells
KEY, DOOR, CUE, DECOY = 14, 15, 16, 18  # a cue is 16 or 17; a decoy looks like a goal and is none
HEADING = 19  # 19..22: an agent that faces left, down, right, up; seen, never on a board
HOLDER = 23  # an agent with a key; 24..27: and with a heading
UNSEEN = 28  # hidden behind a wall
CODES = 29
CHARACTERS = ".#GH@I<v>^0123KDCcX<v>^@<v>^?"  # of each code, in scenes
MEANING = {
    ".": FLOOR, "F": FLOOR, "S": FLOOR, "#": WALL, "G": GOAL, "H": HOLE, "I": ICE,
    "<": ONE_WAY, "v": ONE_WAY + 1, ">": ONE_WAY + 2, "^": ONE_WAY + 3,
    "0": TELEPORT, "1": TELEPORT + 1, "2": TELEPORT + 2, "3": TELEPORT + 3,
    "K": KEY, "D": DOOR, "C": CUE,
}  # fmt: skip
MOST = 256  # rows and columns of a board

GENERATORS = ("maze", "prim", "wilson", "braided", "rooms", "caves", "open", "door-key")  # see generators.py
DFS, PRIM, WILSON, BRAIDED, ROOMS, CAVES, OPEN, DOOR_KEY = range(len(GENERATORS))
LAYOUTS = {
    "frozenlake4": "SFFF/FHFH/FFFH/HFFG",  # Gymnasium's FrozenLake maps; slippery there means slip=0.6666666666666666
    "frozenlake8": "SFFFFFFF/FFFFFFFF/FFFHFFFF/FFFFFHFF/FFFHFFFF/FHHFFFHF/FHFFHFHF/FFFHFFFG",
    "cliff": "............/............/............/SHHHHHHHHHHG",  # Sutton & Barto 2018, example 6.6
    "two-rooms": "#########/#S..#...#/#...#...#/#.......#/#...#...#/#...#..G#/#########",
    "four-rooms": (  # Sutton, Precup & Singh 1999, figure 2
        "#############/#S....#.....#/#.....#.....#/#...........#/#.....#.....#/#.....#.....#/##.####.....#/"
        "#.....###.###/#.....#.....#/#.....#.....#/#...........#/#.....#....G#/#############"
    ),
    "ice": "S#IIIII#II/IIHII#III./IHIIII#III/IIIIII.IIH/#IIIIIIIII/IIIIIIII#I/IIIIIII#II/IIII#I#II#/II#IIIIII./HIIIII#IIG",
}
FITTED = ("deep-sea", "t-maze")  # layouts that `size` stretches


def parse_layout(layout: str, size: int = 11, start: bool = True, goal: bool = True) -> Array:
    """Characters (H, W) of a named or ASCII layout, rows separated by '/' or line breaks.

    `start`, `goal`: whether the layout itself must have one. Raises ValueError with the fault.
    """
    rows = fitted(layout, size) if layout in FITTED else LAYOUTS.get(layout, layout).strip().replace("\n", "/").split("/")
    if rows == [""]:
        raise ValueError("layout is empty: give rows like S.#/..G, or a name")
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"layout rows have lengths {[len(row) for row in rows]}: make them equal")
    if len(rows) > MOST or len(rows[0]) > MOST:
        raise ValueError(f"layout is {len(rows)} x {len(rows[0])}: at most {MOST} x {MOST}")
    cells = np.array([list(row) for row in rows])
    unknown = set(cells.ravel().tolist()) - MEANING.keys()
    if unknown:
        names = ", ".join([*GENERATORS, *LAYOUTS, *FITTED])
        raise ValueError(f"layout has {sorted(unknown)}: use {' '.join(MEANING)} or a name from {names}")
    if start and goal and ((cells == "S").sum() != 1 or (cells == "G").sum() < 1):
        raise ValueError("layout needs exactly one start S and at least one goal G")
    if (cells == "S").sum() != int(start):
        raise ValueError("layout needs exactly one start S" if start else "layout has a start S, and start=random: leave S out")
    if goal != bool((cells == "G").any()):
        raise ValueError("layout needs at least one goal G" if goal else "layout has a goal G, and goal=random: leave G out")
    for pair in "0123":
        if (cells == pair).sum() not in (0, 2):
            raise ValueError(f"layout has {(cells == pair).sum()} teleporters {pair}: they come in pairs")
    if (cells == "C").sum() > 1:
        raise ValueError(f"layout has {(cells == 'C').sum()} cues C: one tells which goal pays")
    if (cells == "C").any() and (cells == "G").sum() != 2:
        raise ValueError("a layout with a cue C needs two goals G: the cue tells which of them pays")
    return cells


def fitted(layout: str, size: int) -> list[str]:
    """Rows of a layout that `size` stretches.

    deep-sea: size steps down (Osband et al. 2020, bsuite), so size + 1 rows; the last is all holes but for the goal.
    t-maze: a corridor of `size` steps from the start S to the junction, the cue behind the start (Bakker 2002).
    """
    if layout == "deep-sea":
        return ["S" + "." * size, *["." * (size + 1)] * (size - 1), "H" * size + "G"]
    wall = "#" * (size + 1)
    return [wall + "###", wall + "#G#", "#CS" + "." * size + "#", wall + "#G#", wall + "###"]


@functools.lru_cache(maxsize=64)
def partners(board: bytes) -> tuple[int, ...]:
    """For each cell of a flat board of codes, where it takes one: to the other teleporter of its pair, else nowhere."""
    tiles = np.frombuffer(board, np.uint8)
    to = np.arange(len(tiles))
    for pair in range(TELEPORT, TELEPORT + 4):
        found = np.flatnonzero(tiles == pair)
        if len(found) == 2:
            to[found] = found[::-1]
    return tuple(to.tolist())


def padded(cells: Array, pad: int) -> Array:
    """Flat board of codes (H, W) with a rim of walls and 7 spare bytes: the form that windows are copied from."""
    return np.append(np.pad(cells, pad, constant_values=WALL), np.full(7, WALL)).astype(np.uint8)


def codes_of(cells: Array) -> Array:
    """uint8 (H, W): the codes of characters."""
    return np.vectorize(MEANING.get, otypes=[np.uint8])(cells)
