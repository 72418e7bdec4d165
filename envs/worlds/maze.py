"""Mazes: boards of tiles from a generator or an ASCII layout, seen whole, through a window or by coordinates.

The default is the plain game: walk to the goal, mind the holes. Everything else is an option that costs nothing where it
is not used: the rules of the plain game are compiled apart, with the window's size in the code.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ..core import MOST_STEPS, Array, Entity, Model, Preset, Scene, World, WorldConfig, Yardstick, outside, rule
from ..grid import DX, DY, RIGHT, copy_block, copy_window, turned
from ..levels import (
    AGENT,
    CHARACTERS,
    CODES,
    CUE,
    DECOY,
    DOOR,
    FITTED,
    FLOOR,
    GENERATORS,
    GOAL,
    HEADING,
    HOLDER,
    HOLE,
    ICE,
    KEY,
    LAYOUTS,
    MEANING,
    MOST,
    ONE_WAY,
    OPEN,
    ROOMS,
    TELEPORT,
    UNSEEN,
    WALL,
    generate,
    parse_layout,
    partners,
    scratch_size,
)  # fmt: skip
from ..registry import world
from ..rng import GOLDEN, below, copy_seeds, fresh_streams, mix, unit
from ..search import MOST_CELLS

MOVES = ("four", "eight", "turn", "fall")
FOUR, EIGHT, TURN, FALL = range(4)
SHOWS = ("codes", "rgb", "coordinates")
SHOW_CODES, SHOW_RGB, SHOW_COORDINATES = range(3)
SHAPINGS = ("none", "manhattan", "distance")
MODEL_STATES = 2**20  # that an exact model may have
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
LOOK = np.arange(CODES, dtype=np.uint8)  # what a tile looks like
LOOK[DECOY] = GOAL
PALETTE = np.zeros((CODES, 3), np.uint8)  # one pixel a cell
for _codes, _color in (
    ((FLOOR,), 0xFAF6EE), ((WALL,), 0x55617D), ((GOAL,), 0xF5B921), ((HOLE,), 0x12151F), ((AGENT,), 0x0072B2),
    ((ICE,), 0xBFE3F5),
    (range(ONE_WAY, ONE_WAY + 4), 0xE0C8A0), (range(TELEPORT, TELEPORT + 4), 0xCC79A7), ((KEY,), 0xF0E442), ((DOOR,), 0xD55E00),
    ((CUE,), 0x009E73), ((CUE + 1,), 0x56B4E9), ((DECOY,), 0xF5B921), (range(HEADING, HEADING + 4), 0x0072B2),
    (range(HOLDER, HOLDER + 5), 0x00A2D2), ((UNSEEN,), 0x8A8F98),
):  # fmt: skip
    for _n, _code in enumerate(_codes):  # directions and pairs differ a little in blue
        PALETTE[_code] = [_color >> 16, _color >> 8 & 255, (_color & 255) ^ _n]


class Boards(NamedTuple):
    """The boards that all copies share: L levels, P padded cells each and 7 spare bytes."""

    tiles: Array  # uint8 (L, P)
    start: Array  # int32 (L,): flat cells
    goal: Array  # int32 (L,): a flat cell, -1 where each episode draws one


def _check_generated(o: Any) -> None:
    """Raise ValueError where a generator cannot make a board of these sizes."""
    kind = GENERATORS.index(o.layout)
    if kind < ROOMS and (o.size % 2 == 0 or o.size < 5):
        raise ValueError(f"a maze's size must be odd and at least 5: try {max(5, o.size + 1)}")
    if kind == ROOMS and (o.size < 2 * o.rooms + 1 or o.size < 4):
        raise ValueError(f"{o.rooms} rooms on a side need size {max(4, 2 * o.rooms + 1)} or more")
    least = {OPEN: 4}.get(kind, 5)
    if o.size < least and kind == OPEN:
        raise ValueError("an open room needs size 4 or more: start and goal are different cells")
    if o.size < least:
        raise ValueError(f"layout={o.layout} needs size {least} or more")
    if o.moves == "fall":
        raise ValueError("moves=fall needs a layout to fall through: try layout=deep-sea")
    _check_start(o)


def _check_layout(o: Any) -> None:
    """Raise ValueError where a layout and the options about start and goal do not fit."""
    if o.layout in FITTED and o.size > MOST - 4:
        raise ValueError(f"layout={o.layout} takes size {MOST - 4} at most")
    cells = _characters(o)
    if not o.show_goal and (cells == "G").sum() > 1:
        raise ValueError("show_goal=false hides one goal: the layout has several")
    if (cells == "K").sum() > 126:
        raise ValueError("layout has more than 126 keys: leave some out")
    if o.levels:
        raise ValueError("levels are boards of a generator: leave levels out, or choose layout=maze")
    if o.start == "random" or o.goal == "random":
        free = np.argwhere(np.isin(cells, list(".FS")))
        at = np.argwhere(cells == "S") if o.start == "layout" else free
        if not len(free):
            raise ValueError("layout has no floor for a random start or goal: add a '.'")
        if o.goal == "random":
            # The cell that is farthest from another is so from one of the corners of their bounding box.
            low, high = free.min(0), free.max(0)
            farthest = np.maximum(at - low, high - at).max(1)
            if farthest.min() < o.goal_distance:
                raise ValueError(f"goal_distance is {o.goal_distance}: no floor is that far from some start; lower it")
    _check_start(o)


def _check_start(o: Any) -> None:
    if o.goal == "random" and o.layout == "door-key":
        raise ValueError("layout=door-key has its goal behind the door: leave goal out")


@functools.lru_cache(maxsize=64)
def _read(layout: str, size: int, start: bool, goal: bool) -> Array:
    return parse_layout(layout, size, start, goal)


def _characters(o: Any) -> Array:
    """Characters (H, W) of the layout of configuration `o`; a named one gives up its S or G where they are drawn."""
    return _read(o.layout, o.size, o.start == "layout", o.goal == "layout")


def _open_start(name: str) -> str:
    """A named layout without its start, for presets that draw one."""
    return LAYOUTS[name].replace("S", ".")


def _dark(side: int, start: int) -> dict[str, Any]:
    """Options of a room without walls, `side` x `side`, whose goal nobody sees; it pays every step that one stands on it."""
    line = "." * side * side
    line = line[:start] + "S" + line[start + 1 :]
    return {
        "layout": "/".join(line[row * side : (row + 1) * side] for row in range(side)),
        "goal": "random", "goal_distance": 0, "show_goal": False, "goal_ends": False, "stay": True, "observe": "coordinates",
    }  # fmt: skip


def _first_person() -> dict[str, Any]:
    """Options of MiniGrid's way to move and see."""
    return {"moves": "turn", "occlusion": True, "time_limit": 200}


@world("maze")
class Maze(World):
    """Walk to the goal. Reward: `goal_reward` at the goal, `hole_reward` in a hole, `step_reward` for any other step.

    Actions. moves=four: left, down, right, up. eight: left, down-left, down, down-right, right, up-right, up, up-left.
    turn: turn left, turn right, forward. fall: left, right, always a row down. `stay` adds one at the end: stay.
    Observation, uint8. observe=codes: the window's or board's codes (see envs/levels.py; 0 floor, 1 wall, 2 goal, 3 hole,
    and on the whole board 4 the agent). rgb: the same as colours, planes (3, rows, columns). coordinates: row, column,
    then the heading (moves=turn) and the keys (where there are keys). With moves=turn a window turns with the agent, up is
    ahead. In a window the middle shows a key while the agent carries one.

    Ice: one slides on until something stops one or the ice ends. One-way tiles (< v > ^) are entered only in their
    direction (with a diagonal move: or beside it). Entering a teleporter leads to the other of the pair. A key is taken
    by entering, a locked door takes a key to enter. Diagonal moves look at the cell they enter, not at its neighbours.
    A slipping move goes to one of its two sides: by 90 degrees, with eight moves by 45, in a fall to the other one.
    With occlusion a cell is seen where no wall or locked door lies on the straight line to it, rounded half away from 0.
    """

    class Config(WorldConfig):
        layout: str = Field("maze", description="a generator, a named layout or ASCII rows like S.#/..G (see envs/levels.py)")
        size: int = Field(11, ge=3, le=MOST, description="rows and columns of generated boards, walls included; odd for mazes")
        rooms: int = Field(3, ge=1, le=32, description="rooms on a side of layout=rooms")
        loops: float = Field(0.0, ge=0, le=1, description="braided: share of dead ends opened; rooms: of spare doorways")
        fresh: bool = Field(True, description="a new board each episode; false: the one of maze_seed every time")
        maze_seed: int = Field(0, ge=0, lt=2**63, description="which board or boards, where not each episode has a new one")
        levels: int = Field(0, ge=0, le=10_000, description="draw each episode's board from so many; 0: see fresh")
        held_out: int = Field(0, ge=0, le=10_000, description="further boards for split=test, which never occur in training")
        split: Literal["train", "test"] = Field("train", description="play the training levels or the held-out ones")
        start: Literal["layout", "random"] = Field("layout", description="random: any floor cell, each episode anew")
        goal: Literal["layout", "random"] = Field("layout", description="random: any floor cell, each episode anew")
        goal_distance: int = Field(1, ge=0, le=MOST, description="least king's moves from start to a random goal; 0: anywhere")
        show_goal: bool = Field(True, description="false: the goal looks like floor")
        moves: Literal["four", "eight", "turn", "fall"] = Field("four", description="what the actions are")
        stay: bool = Field(False, description="one more action, the last: stay")
        scramble: bool = Field(False, description="moves=fall: maze_seed swaps left and right in half of the cells")
        slip: float = Field(0.0, ge=0, le=1, description="probability that a move goes to one of its two sides")
        sticky: float = Field(0.0, ge=0, le=1, description="probability that the action before is taken once more")
        view: int = Field(7, ge=0, le=201, description="side of the window around the agent, odd; 0 shows the whole board")
        occlusion: bool = Field(False, description="walls and locked doors block the sight in a window")
        observe: Literal["codes", "rgb", "coordinates"] = Field("codes", description="what an observation is made of")
        goal_ends: bool = Field(True, description="false: the goal pays every step that one stands on it, and ends nothing")
        hole_ends: bool = Field(True, description="false: a hole puts back to the start")
        goal_reward: float = Field(1.0, ge=-1e6, le=1e6)
        hole_reward: float = Field(0.0, ge=-1e6, le=1e6)
        step_reward: float = Field(0.0, ge=-1e6, le=1e6, description="reward of a step that reaches neither goal nor hole")
        move_cost: float = Field(0.0, ge=-1e6, le=1e6, description="moves=fall: price of a move to the right")
        shaping: Literal["none", "manhattan", "distance"] = Field(
            "none", description="potential: minus the distance to the goal"
        )
        shaping_gamma: float = Field(0.99, ge=0, le=1, description="the agent's discount, for the shaping reward")
        shaping_scale: float = Field(0.1, ge=0, le=1e6, description="potential of one cell's distance")
        time_limit: int = Field(100, ge=0, le=MOST_STEPS, description="steps until an episode is truncated; 0 means never")

        @field_validator("view")
        @classmethod
        def _odd(cls, view: int) -> int:
            if view and view % 2 == 0:
                raise ValueError(f"view must be odd, so that the agent is in its middle: try {view + 1}")
            return view

        @model_validator(mode="after")
        def _possible(self) -> Any:
            if self.layout in GENERATORS:
                _check_generated(self)
            else:
                _check_layout(self)
            if self.split == "test" and not self.held_out:
                raise ValueError("split=test plays held-out levels: set held_out to how many")
            if self.held_out and not self.levels:
                raise ValueError("held_out levels are others than the training levels: set levels to how many")
            if self.occlusion and (not self.view or self.observe == "coordinates"):
                raise ValueError("occlusion is for windows: set view, and observe to codes or rgb")
            if self.moves == "fall" and (self.stay or self.sticky):
                raise ValueError("moves=fall has two actions and no memory: leave stay and sticky out")
            if self.moves != "fall" and (self.scramble or self.move_cost):
                raise ValueError("scramble and move_cost are for moves=fall: leave them out")
            if self.shaping == "distance" and ((self.layout in GENERATORS and self.is_fresh) or self.goal == "random"):
                raise ValueError("shaping=distance needs boards known beforehand: levels, fresh=false, or shaping=manhattan")
            return self

        @property
        def is_fresh(self) -> bool:
            """Whether each episode grows a board of its own."""
            return self.layout in GENERATORS and self.fresh and not self.levels

    presets = {
        "frozenlake": Preset("Gymnasium's slippery FrozenLake, 4x4", {"layout": "frozenlake4", "slip": 2 / 3}),
        "frozenlake8": Preset(
            "Gymnasium's slippery FrozenLake, 8x8", {"layout": "frozenlake8", "slip": 2 / 3, "time_limit": 200}
        ),
        "cliffwalking": Preset(
            "Gymnasium's CliffWalking: -1 a step, -100 and back to the start from the cliff",
            {"layout": "cliff", "hole_ends": False, "hole_reward": -100, "goal_reward": -1, "step_reward": -1,
             "time_limit": 200},
        ),
        "four-rooms": Preset(
            "Four rooms, after Sutton, Precup & Singh (1999): random start, slips to the two sides",
            {"layout": _open_start("four-rooms"), "start": "random", "slip": 1 / 3, "time_limit": 200},
        ),
        "deep-sea": Preset(
            "bsuite's DeepSea, N = 20: only always right finds the treasure",
            {"layout": "deep-sea", "size": 20, "moves": "fall", "scramble": True, "move_cost": 0.01 / 20, "show_goal": False,
             "observe": "coordinates", "time_limit": 20},
        ),
        "dark-room": Preset(
            "Dark Room (Laskin et al. 2022): a hidden goal that pays every step, 10x10 from the corner",
            _dark(10, 0) | {"time_limit": 100},
        ),
        "dark-room-9": Preset("Dark Room, 9x9 from the centre, 20 steps", _dark(9, 40) | {"time_limit": 20}),
        "varibad-grid": Preset(
            "VariBAD's gridworld (Zintgraf et al. 2020): a hidden goal, 5x5, 15 steps",
            _dark(5, 20) | {"goal_distance": 2, "step_reward": -0.1, "time_limit": 15},
        ),
        "t-maze": Preset(
            "T-maze, after Bakker (2002): a cue at the start, a corridor of 250 steps, then the right arm pays",
            {"layout": "t-maze", "size": 250, "view": 3, "time_limit": 300},
        ),
        "door-key": Preset(
            "After MiniGrid's DoorKey: fetch the key, open the door, 8x8", _first_person() | {"layout": "door-key", "size": 8}
        ),
        "multi-room": Preset(
            "Rooms with doorways, as in MiniGrid's MultiRoom", _first_person() | {"layout": "rooms", "size": 16, "rooms": 3}
        ),
        "maze-prim": Preset("Fresh mazes by Prim's algorithm: many short dead ends", {"layout": "prim"}),
        "maze-wilson": Preset("Fresh mazes, uniform over all spanning trees", {"layout": "wilson"}),
        "maze-braided": Preset("Fresh mazes, all dead ends opened", {"layout": "braided", "loops": 1.0}),
        "maze-rooms": Preset("Fresh boards of 3 x 3 rooms", {"layout": "rooms", "size": 13, "loops": 0.2}),
        "caves": Preset("Fresh caves by a cellular automaton", {"layout": "caves", "size": 15}),
        "ice-maze": Preset("Slide over ice, find where to stop", {"layout": "ice", "step_reward": -0.01}),
    }  # fmt: skip

    class State(NamedTuple):
        tiles: Array  # uint8 (N, P): boards of their own, flat, with a rim of walls; (N, 1) where copies share boards
        scratch: Array  # int32 (N, at least 1): what a generator works with; nothing depends on it between resets
        level: Array  # int32 (N,): which shared board
        cell: Array  # int32 (N,): where the agent is: (row + pad) * stride + column + pad
        start: Array  # int32 (N,): flat cell
        goal: Array  # int32 (N,): flat cell of the goal, of the first of several
        heading: Array  # int8 (N,): left, down, right, up; moves=turn
        keys: Array  # int8 (N,)
        last: Array  # int8 (N,): the action before, -1 at first; sticky > 0

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

    static = (
        "plain", "mine", "window", "span", "rim", "own", "side", "kind", "moves", "hidden", "random_start", "random_goal",
        "shaping", "show", "occluded", "has_keys",
    )  # fmt: skip

    # --- boards

    @property
    def _cells(self) -> Array | None:
        return None if self.config.layout in GENERATORS else _characters(self.config)

    def _shape(self) -> tuple[int, int, int]:
        """Rows and columns of the board, and the rim around it."""
        cells = self._cells
        height, width = cells.shape if cells is not None else (self.config.size, self.config.size)
        return height, width, max(self.config.view // 2, 1)

    @property
    def _changes(self) -> bool:
        """Whether play changes the board: keys, doors and cues."""
        cells = self._cells
        return self.config.layout == "door-key" if cells is None else bool(np.isin(cells, ("K", "D", "C")).any())

    @property
    def _keys(self) -> bool:
        cells = self._cells
        return self.config.layout == "door-key" if cells is None else bool((cells == "K").any())

    @property
    def _own(self) -> bool:
        o = self.config
        return bool(o.is_fresh or self._changes or (o.goal == "random" and o.show_goal))

    @property
    def _plain(self) -> bool:
        """Whether the rules that are compiled apart, for speed, are enough."""
        o, cells = self.config, self._cells
        simple = cells is None or bool(np.isin(cells, list(".FS#GH")).all())
        usual = o.moves == "four" and not o.stay and o.sticky == 0 and o.shaping == "none" and o.observe == "codes"
        fixed = o.layout == "maze" if o.is_fresh else (o.start == "layout" and o.goal == "layout")
        return bool(
            simple and usual and fixed and o.show_goal and o.goal_ends and o.hole_ends and o.view and not o.occlusion
            and not self._changes
        )  # fmt: skip

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        o, (height, width, _) = self.config, self._shape()
        if o.observe == "coordinates":
            high = [height - 1, width - 1] + [3] * (o.moves == "turn") + [127] * self._keys
            return gymnasium.spaces.Box(np.zeros(len(high), np.uint8), np.array(high, np.uint8), dtype=np.uint8)
        shape = (o.view, o.view) if o.view else (height, width)
        if o.observe == "rgb":
            return gymnasium.spaces.Box(0, 255, (3, *shape), np.uint8)
        top = max(
            HOLE if o.view else AGENT, 0 if self._cells is None else max(MEANING[c] for c in set(self._cells.ravel().tolist()))
        )
        top = max(top, DOOR if self._changes else 0, CUE + 1 if self._cells is not None and (self._cells == "C").any() else 0)
        if not o.view:
            top = max(top, HEADING + 3 if o.moves == "turn" else 0, HOLDER + 4 if self._keys else 0)
        return gymnasium.spaces.Box(0, UNSEEN if o.occlusion else top, shape, np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete((4, 8, 3, 2)[MOVES.index(self.config.moves)] + self.config.stay)

    def allocate(self, n: int) -> State:
        height, width, pad = self._shape()
        o = self.config
        area = (height + 2 * pad) * (width + 2 * pad) + 7 if self._own else 1
        spare = scratch_size(GENERATORS.index(o.layout), o.size) if o.is_fresh else 1
        small = (np.zeros(n, np.int8) for _ in range(3))
        large = (np.zeros(n, np.int32) for _ in range(4))
        return self.State(
            np.full((n, area), WALL if self._own else 0, np.uint8), np.zeros((n, spare), np.int32), *large, *small
        )

    def constants(self) -> Constants:
        return _constants(self.config)

    # --- rules

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        stride = c.span if c.plain else c.stride
        pad = c.rim if c.plain else c.pad
        level = 0
        if (c.plain and c.mine) or (not c.plain and c.kind >= 0):
            tiles = s.tiles[i]
            start, goal = generate(tiles, stride, pad, c.width, rng, i, s.scratch[i], c)
            if c.plain or not c.hidden:
                tiles[goal] = GOAL
        else:
            if c.shared > 1:
                level = below(rng, i, c.shared)
            start, goal = np.int64(c.starts[level]), np.int64(c.goals[level])  # type: ignore[assignment]
        if not c.plain:
            if c.kind < 0:
                if c.own:
                    tiles, board = s.tiles[i], c.boards[level]
                    for j in range(len(board)):
                        tiles[j] = board[j]
                if c.random_start:
                    start = np.int64(c.free[level, below(rng, i, c.free_count[level])])  # type: ignore[assignment]
                if c.random_goal:
                    while True:
                        goal = np.int64(c.free[level, below(rng, i, c.free_count[level])])  # type: ignore[assignment]
                        rows, columns = abs(goal // stride - start // stride), abs(goal % stride - start % stride)
                        if max(rows, columns) >= c.goal_distance:
                            break
                    if not c.hidden:
                        s.tiles[i, goal] = GOAL
                if c.cue >= 0:
                    arm = below(rng, i, 2)
                    goal = np.int64(c.arms[arm])  # type: ignore[assignment]
                    s.tiles[i, c.cue] = CUE + arm
                    s.tiles[i, c.arms[1 - arm]] = DECOY
            s.heading[i] = RIGHT
            s.keys[i] = 0
            s.last[i] = -1
        s.level[i] = level
        s.cell[i], s.start[i], s.goal[i] = start, start, goal

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        if c.plain:
            d = turned(rng, i, action[0], c.slip)
            here = s.cell[i]
            there = here + DY[d] * c.span + DX[d]
            tile = s.tiles[i, there] if c.mine else c.boards[s.level[i], there]
            s.cell[i] = here if tile == WALL else there
            reward[0] = c.rewards[tile]
            return c.ends[tile]
        tiles = s.tiles[i] if c.own else c.boards[s.level[i]]
        a = action[0]
        if c.sticky > 0.0:
            again = unit(rng, i) < c.sticky and s.last[i] >= 0
            a = np.int64(s.last[i]) if again else a
            s.last[i] = a
        before = np.int64(s.cell[i])
        cell = before
        goes, d, cost = a != c.stay, np.int64(2 * a), 0.0  # type: ignore[assignment]
        if c.moves == EIGHT:
            d = a
        elif c.moves == TURN:
            if a < 2:
                s.heading[i] = (s.heading[i] + 1 + 2 * a) & 3
            goes = a == 2
            d = np.int64(2 * s.heading[i])  # type: ignore[assignment]
        elif c.moves == FALL:
            right = a ^ c.flip[cell]
            d = np.int64(DOWN_LEFT + 2 * right)  # type: ignore[assignment]
            cost = c.move_cost * right
        if c.slip > 0.0:
            u = unit(rng, i)
            if c.moves == FALL:
                d = 4 - d if u < c.slip else d
            else:
                side = 1 if c.moves == EIGHT else 2
                d = (d + (side if u < c.slip else 0) - (2 * side if 2.0 * u < c.slip else 0)) & 7
        if goes:
            step = ROW[d] * c.stride + COLUMN[d]
            tile = tiles[cell + step]
            open_ = ((ENTER[tile] >> d) & 1) == 1 and (tile != DOOR or s.keys[i] > 0)
            if c.moves == FALL and not open_:
                d, step = STRAIGHT, c.stride
                tile = tiles[cell + step]
                open_ = ((ENTER[tile] >> d) & 1) == 1 and (tile != DOOR or s.keys[i] > 0)
            if open_:
                cell += step
                while tile == ICE:
                    tile = tiles[cell + step]
                    if ((ENTER[tile] >> d) & 1) == 0 or (tile == DOOR and s.keys[i] == 0):
                        break
                    cell += step
                tile = tiles[cell]
                if tile == KEY:
                    s.keys[i] += 1
                    s.tiles[i, cell] = FLOOR
                elif tile == DOOR:
                    s.keys[i] -= 1
                    s.tiles[i, cell] = FLOOR
                elif TELEPORT <= tile < TELEPORT + 4:
                    cell = np.int64(c.partner[cell])
        tile = np.int64(tiles[cell])
        if c.hidden and cell == s.goal[i]:
            tile = GOAL
        ends = c.ends[tile]
        paid = np.float64(c.rewards[tile]) - cost
        if tile == HOLE and not c.hole_ends:
            cell = np.int64(s.start[i])
        if c.shaping > 0:
            goal, level = np.int64(s.goal[i]), s.level[i]
            if c.shaping == 1:
                stride = c.stride
                here = abs(before // stride - goal // stride) + abs(before % stride - goal % stride)
                there = abs(cell // stride - goal // stride) + abs(cell % stride - goal % stride)
                paid += c.shaping_scale * (here - (0.0 if ends else c.shaping_gamma * there))
            else:
                after = 0.0 if ends else c.shaping_gamma * np.float64(c.distance[level, cell])
                paid += c.shaping_scale * (np.float64(c.distance[level, before]) - after)
        s.cell[i] = cell
        reward[0] = paid
        return ends

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        cell = np.int64(s.cell[i])
        if c.plain:
            tiles = s.tiles[i] if c.mine else c.boards[s.level[i]]
            copy_window(tiles, cell - c.window // 2 * (c.span + 1), c.span, c.window, out, 0, c.window * c.window)
        elif c.show == SHOW_COORDINATES:
            out[0], out[1] = cell // c.stride - c.pad, cell % c.stride - c.pad
            n = 2
            if c.moves == TURN:
                out[n] = s.heading[i]
                n += 1
            if c.has_keys:
                out[n] = s.keys[i]
        else:
            tiles = s.tiles[i] if c.own else c.boards[s.level[i]]
            half = c.side // 2
            area = c.side * c.side
            if c.side == 0:
                area = c.height * c.width
                copy_block(tiles, c.pad * c.stride + c.pad, c.stride, c.height, c.width, out, 0, area)
            elif c.moves == TURN:
                h = np.int64(s.heading[i])
                r = (h + 3) & 3
                ahead, right = DY[h] * c.stride + DX[h], DY[r] * c.stride + DX[r]
                for row in range(c.side):
                    at = cell + (half - row) * ahead - half * right
                    for column in range(c.side):
                        out[row * c.side + column] = tiles[at + column * right]
            else:
                copy_block(tiles, cell - half * (c.stride + 1), c.stride, c.side, c.side, out, 0, area)
            if c.cue >= 0:
                for j in range(area):
                    out[j] = LOOK[out[j]]
            if c.side == 0:
                code = AGENT
                if c.moves == TURN:
                    code = HEADING + s.heading[i] + (HOLDER + 1 - HEADING if s.keys[i] > 0 else 0)
                elif s.keys[i] > 0:
                    code = HOLDER
                out[(cell // c.stride - c.pad) * c.width + cell % c.stride - c.pad] = code
            elif s.keys[i] > 0:
                out[half * c.side + half] = KEY
            if c.occluded and area <= 64:  # all cells in one word, and for each cell the word of those before it
                blind = np.uint64(0)
                for j in range(area):
                    blind |= np.uint64((out[j] == WALL) | (out[j] == DOOR)) << np.uint64(j)
                for j in range(area):
                    out[j] = out[j] if blind & c.before[j] == 0 else UNSEEN
            elif c.occluded:
                for n in range(area):  # from the rim inwards: what blocks the sight is still to be read
                    for j in range(1, half + 1):
                        between = c.sight[n, j]
                        if between < 0:
                            break
                        if out[between] == WALL or out[between] == DOOR:
                            out[c.sight[n, 0]] = UNSEEN
                            break
            if c.show == SHOW_RGB:
                for j in range(area):
                    code = np.int64(out[j])  # type: ignore[assignment]
                    out[j] = PALETTE[code, 0]
                    out[area + j] = PALETTE[code, 1]
                    out[2 * area + j] = PALETTE[code, 2]

    # --- what others ask

    def _flat(self, s: Any, i: int) -> Array:
        """The flat board of copy i, rim and spare bytes included."""
        return np.asarray(s.tiles[i] if self._own else _boards(self.config).tiles[s.level[i]])

    def _place(self, cell: Any) -> tuple[Any, Any]:
        """Row and column, without the rim, of flat cells."""
        _, width, pad = self._shape()
        stride = width + 2 * pad
        return cell // stride - pad, cell % stride - pad

    def places(self, model: Model) -> tuple[Array, Array]:
        """Row and column of the agent in each state of a model of this world, int64 (S,) each: for drawings."""
        y, x = self._place(model.fields["cell"].astype(np.int64))
        return y, x

    def _board(self, s: Any, i: int) -> Array:
        height, width, pad = self._shape()
        padded = self._flat(s, i)[:-7].reshape(height + 2 * pad, width + 2 * pad)
        return padded[pad : pad + height, pad : pad + width]

    def check_state(self, s: Any) -> str | None:
        height, width, pad = self._shape()
        shape = height + 2 * pad, width + 2 * pad
        inside = np.zeros(shape, np.bool_)
        inside[pad : pad + height, pad : pad + width] = True
        if self._own:
            boards = s.tiles[:, :-7].reshape(-1, *shape)
            if outside(s.tiles, FLOOR, DECOY) or outside(boards[:, ~inside], WALL, WALL):
                return "tiles hold an unknown code or an open rim"
        drawn = _boards(self.config).tiles
        if outside(s.level, 0, len(drawn) - 1):
            return "level is not one of the boards"
        if self._own:  # only what may come up here: a teleporter where none was drawn leads out of all arrays
            others = s.tiles.copy()
            if not self.config.is_fresh:
                at = np.flatnonzero((drawn[0] >= TELEPORT) & (drawn[0] < TELEPORT + 4))
                if (s.tiles[:, at] != drawn[s.level][:, at]).any():
                    return "tiles have lost a teleporter"
                others[:, at] = FLOOR
            if ((others >= TELEPORT) & (others < TELEPORT + 4)).any():
                return "tiles hold a teleporter that the layout does not have"
            if ((s.tiles == KEY).sum(1) + s.keys.astype(np.int64)).max(initial=0) > 126:
                return "tiles hold more keys than can be carried"
        for name in ("cell", "start", "goal"):
            at = getattr(s, name)
            if outside(at, 0, inside.size - 1) or not inside.ravel()[at].all():
                return f"{name} is off the board"
        if outside(s.heading, 0, 3) or outside(s.keys, 0, 126) or outside(s.last, -1, int(self.action_space.n) - 1):
            return "heading, keys or last is out of its range"
        return None

    def scene(self, s: Any, i: int) -> Scene:
        board = self._board(s, i)
        cells = np.array(list(CHARACTERS))[board]
        if not self.config.show_goal:
            cells[self._place(s.goal[i])] = "G"
        row, column = self._place(s.cell[i])
        here = int(row), int(column)
        entities: tuple[Entity, ...] = (Entity(*here, "agent"),)
        if self.config.moves == "turn":
            entities += (Entity(*here, "heading", int(s.heading[i])),)
        keys = f"keys: {s.keys[i]}" if self._keys else ""
        if (board == CUE).any() or (board == CUE + 1).any():
            keys = f"cue: {int((board == CUE + 1).any())}"
        return Scene(cells, entities, caption=keys)

    # --- exactness

    @property
    def _states(self) -> int:
        """At most so many states has a model; from the options alone."""
        height, width, _ = self._shape()
        items = 2 if self.config.layout == "door-key" else 0
        if self._cells is not None:
            items = int(np.isin(self._cells, ("K", "D")).sum())
        n = int(self.action_space.n)
        memory = (4 if self.config.moves == "turn" else 1) * (n + 1 if self.config.sticky else 1)
        return height * width * memory * 2 ** min(items, 40)

    @property
    def _search(self) -> bool:
        """Whether an agent must look for a goal that it cannot see, and envs/search.py can tell how well."""
        o = self.config
        return bool(
            o.goal == "random" and not o.show_goal and not o.goal_ends and not o.is_fresh and not o.levels and o.slip == 0
            and o.sticky == 0 and o.stay and o.moves in ("four", "eight") and not self._changes and o.shaping == "none"
            and o.start == "layout" and o.time_limit and self._simple and self._shape()[0] * self._shape()[1] <= MOST_CELLS
        )  # fmt: skip

    @property
    def _simple(self) -> bool:
        return self._cells is None or not (self._cells == "H").any()

    @property
    def solver(self) -> str:
        if self._search:
            return "search"
        return "dynamic programming" if self._states <= MODEL_STATES else ""

    def model(self, s: Any, i: int) -> Model | None:
        """States: cells that are no walls, times heading, action before and which keys and doors are left, where they matter.

        Goals and holes that end the episode are entered, never left.
        """
        if self._states > MODEL_STATES:
            return None
        o, c = self.config, self.constants()
        actions = int(self.action_space.n)
        board, keys = self._flat(s, i).copy(), int(s.keys[i])
        cells = np.flatnonzero(board != WALL)
        index = np.full(len(board), -1)
        index[cells] = np.arange(len(cells))
        headings = np.arange(4) if o.moves == "turn" else np.array([int(s.heading[i])])
        lasts = np.arange(-1, actions) if o.sticky else np.array([int(s.last[i])])
        each = len(cells)
        blocks = len(headings) * len(lasts)
        sets = _Sets(board, keys)
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
                            for n, (where, d, q, cost) in enumerate(_intended(c, cells, did, int(heading))):
                                key = (d.tobytes(), cost.tobytes())
                                if key not in lands:
                                    lands[key] = self._land(s, i, c, sets, at, cells, d)
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
        return Model(next_state, probability, reward, terminated, int(start), fields)

    def _land(self, s: Any, i: int, c: Constants, sets: _Sets, at: int, cells: Array, d: Array) -> tuple[Array, ...]:
        """Where moves in directions `d` (S,), -1 to stay, end: cells, numbers in `sets`, rewards and ends, (S,) each."""
        o, tiles, held = self.config, sets.boards[at], sets.keys[at]
        cell = _slide(tiles, held, c.stride, c.partner, cells, d, o.moves == "fall")
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
            far = _manhattan(int(s.goal[i]), c.stride, len(tiles)) if c.shaping == 1 else c.distance[s.level[i]]
            paid = paid + c.shaping_scale * (far[cells] - np.where(over, 0, c.shaping_gamma * far[cell]))
        return cell, then, paid, over

    def yardstick(self, s: Any) -> Yardstick | None:
        """Of goals that an agent must look for; other configurations have their model's."""
        if not self._search:
            return None
        random, optimal, bound = _searched(self.config)
        n = len(s.level)
        meaning = "best found for an agent that must look for the goal, on average over goals"
        meaning = meaning.replace("best found", "optimum") if bound - optimal < 1e-9 else f"{meaning} (at most {bound:.2f})"
        return Yardstick(np.full(n, random), np.full(n, optimal), meaning)


def _padded(cells: Array, pad: int) -> Array:
    """Flat board of codes with a rim of walls and 7 spare bytes: the form that windows are copied from."""
    return np.append(np.pad(cells, pad, constant_values=WALL), np.full(7, WALL)).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _boards(o: Any) -> Boards:
    """What all copies share with options `o`: one board, or its levels, or nothing but a place-holder."""
    pad = max(o.view // 2, 1)
    if o.is_fresh:
        return Boards(np.full((1, 1), WALL, np.uint8), np.zeros(1, np.int32), np.zeros(1, np.int32))
    if o.layout in GENERATORS:
        return _levels(o)
    cells = _characters(o)
    stride = cells.shape[1] + 2 * pad
    flat = _padded(np.vectorize(MEANING.get)(cells), pad)
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
    fresh = type(o)(layout=o.layout, size=o.size, rooms=o.rooms, loops=o.loops, view=o.view, observe="coordinates")
    world = Maze(fresh)
    if len(seeds) > 16:
        from ..engine import Engine

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
def _constants(o: Any) -> Maze.Constants:
    world = Maze(o)
    height, width, pad = world._shape()
    stride = width + 2 * pad
    boards, cells, plain, actions = _boards(o), world._cells, world._plain, int(world.action_space.n)
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
            [_distances(b, np.flatnonzero(b == GOAL) if o.show_goal else np.array([g]), stride, partner, o.moves)
             for b, g in zip(boards.tiles, boards.goal, strict=True)]
        )  # fmt: skip
    return Maze.Constants(
        plain=plain, mine=bool(plain and o.is_fresh), window=o.view if plain else 0, span=stride if plain else 0,
        rim=pad if plain else 0, own=world._own, shared=len(boards.tiles), side=o.view, stride=stride, pad=pad, height=height,
        width=width, kind=GENERATORS.index(o.layout) if o.is_fresh else -1, rooms=o.rooms, loops=float(o.loops),
        moves=MOVES.index(o.moves), actions=actions, stay=actions - 1 if o.stay else -1, slip=float(o.slip),
        sticky=float(o.sticky), hidden=not o.show_goal, random_start=o.start == "random" and not o.is_fresh,
        random_goal=o.goal == "random" and not o.is_fresh, goal_distance=o.goal_distance, goal_ends=o.goal_ends,
        hole_ends=o.hole_ends, cue=int(cue[0]) if len(cue) else -1,
        arms=np.flatnonzero(flat == GOAL).astype(np.int32)[:2] if len(cue) else np.zeros(2, np.int32),
        rewards=rewards, ends=ends, move_cost=float(o.move_cost), shaping=SHAPINGS.index(o.shaping),
        shaping_gamma=float(o.shaping_gamma), shaping_scale=float(o.shaping_scale), boards=boards.tiles, starts=boards.start,
        goals=boards.goal, free=free, free_count=free_count, partner=partner, flip=flip, distance=distance,
        show=SHOWS.index(o.observe), occluded=o.occlusion, sight=_sight(o.view), before=_before(o.view), has_keys=world._keys,
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


class _Sets:
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


def _intended(c: Maze.Constants, cells: Array, action: int, heading: int) -> list[tuple[int, Array, float, Array]]:
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


def _slide(board: Array, keys: int, stride: int, partner: Array, cells: Array, d: Array, fall: bool) -> Array:
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


def _distances(board: Array, goals: Array, stride: int, partner: Array, moves: str) -> Array:
    """float32 (P,): fewest moves from each cell to the nearest goal, doors open; cells without a way are size away."""
    cells = np.flatnonzero(board != WALL)
    far = np.full(len(board), float(len(board)))
    far[goals] = 0
    ways = range(8) if moves == "eight" else (DOWN_LEFT, DOWN_RIGHT) if moves == "fall" else range(0, 8, 2)
    to = [_slide(board, 1, stride, partner, cells, np.full(len(cells), d), moves == "fall") for d in ways]
    while True:
        nearer = np.minimum(far[cells], 1 + np.min([far[t] for t in to], axis=0))
        if (nearer == far[cells]).all():
            return far.astype(np.float32)
        far[cells] = nearer


def _manhattan(goal: int, stride: int, size: int) -> Array:
    """float64 (P,): rows and columns between each cell and the goal."""
    cells = np.arange(size)
    return np.asarray(abs(cells // stride - goal // stride) + abs(cells % stride - goal % stride), np.float64)


@functools.lru_cache(maxsize=16)
def _searched(o: Any) -> tuple[float, float, float]:
    """Return of random actions, of the best search found, and a bound on the best; on average over goals."""
    from ..search import best_search

    world, c = Maze(o), _constants(o)
    board, begin = c.boards[0], int(c.starts[0])
    cells = np.flatnonzero(board != WALL)
    index = np.full(len(board), -1)
    index[cells] = np.arange(len(cells))
    to = [_slide(board, 0, c.stride, c.partner, cells, _intended(c, cells, a, 2)[0][1], False) for a in range(c.actions)]
    neighbours = index[np.stack(to, 1)]
    rows, columns = abs(cells // c.stride - begin // c.stride), abs(cells % c.stride - begin % c.stride)
    prior = ((board[cells] == FLOOR) & (np.maximum(rows, columns) >= o.goal_distance)).astype(np.float64)
    prior /= prior.sum()
    found = best_search(neighbours, int(index[begin]), prior, world.horizon, hit=o.goal_reward, miss=o.step_reward)
    at, random = np.zeros(len(cells)), 0.0
    at[index[begin]] = 1.0
    for _ in range(world.horizon):
        at = np.bincount(neighbours.ravel(), np.repeat(at / c.actions, c.actions), len(cells))  # type: ignore[assignment]
        random += float(at @ (prior * o.goal_reward + (1 - prior) * o.step_reward))
    return random, float(found.value), float(found.bound)
