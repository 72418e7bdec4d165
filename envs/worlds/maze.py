"""Mazes: perfect mazes grown by depth-first search, open rooms and ASCII layouts; find the goal, mind the holes."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ..core import MOST_STEPS, Array, Entity, Model, Preset, Scene, World, WorldConfig, outside, rule
from ..grid import DX, DY, carve_maze, copy_window, slip_outcomes, slipped
from ..registry import world
from ..rng import below, fresh_streams

FLOOR, WALL, GOAL, HOLE, AGENT = 0, 1, 2, 3, 4
CODES = {".": FLOOR, "S": FLOOR, "F": FLOOR, "#": WALL, "G": GOAL, "H": HOLE}
LAYOUTS = {
    "frozenlake4": "SFFF/FHFH/FFFH/HFFG",  # Gymnasium's FrozenLake maps; slippery there means slip=0.6666666666666666
    "frozenlake8": "SFFFFFFF/FFFFFFFF/FFFHFFFF/FFFFFHFF/FFFHFFFF/FHHFFFHF/FHFFHFHF/FFFHFFFG",
    "two-rooms": "#########/#S..#...#/#...#...#/#.......#/#...#...#/#...#..G#/#########",
}


def parse_layout(layout: str) -> Array:
    """Characters (H, W) of an ASCII layout, rows separated by '/' or line breaks. Raises ValueError with the fault."""
    rows = LAYOUTS.get(layout, layout).strip().replace("\n", "/").split("/")
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"layout rows have lengths {[len(row) for row in rows]}: make them equal")
    if len(rows) > 101 or len(rows[0]) > 101:
        raise ValueError(f"layout is {len(rows)} x {len(rows[0])}: at most 101 x 101")
    cells = np.array([list(row) for row in rows])
    unknown = set(cells.ravel().tolist()) - CODES.keys()
    if unknown:
        raise ValueError(f"layout has {sorted(unknown)}: use {' '.join(CODES)} or a name from {', '.join(LAYOUTS)}")
    if (cells == "S").sum() != 1 or (cells == "G").sum() < 1:
        raise ValueError("layout needs exactly one start S and at least one goal G")
    return cells


@world("maze")
class Maze(World):
    """Walk to the goal. Actions: left, down, right, up. Reward: `goal_reward` at the goal, `step_reward` otherwise.

    Observation, uint8 codes (0 floor, 1 wall, 2 goal, 3 hole): a view x view window centred on the agent, or with
    view=0 the whole board with the agent as 4. With probability `slip` a move goes to one of the two sides instead.
    """

    class Config(WorldConfig):
        layout: str = Field("maze", description="maze, open, frozenlake4, frozenlake8, two-rooms or ASCII rows like S.#/..G")
        size: int = Field(11, ge=3, le=101, description="rows and columns of maze and open, walls included; odd for maze")
        fresh: bool = Field(True, description="a new maze each episode; false: the one of maze_seed every time")
        maze_seed: int = Field(0, ge=0, lt=2**63, description="which maze, where fresh is false")
        slip: float = Field(0.0, ge=0, le=1, description="probability that a move goes to one of its two sides")
        view: int = Field(7, ge=0, le=201, description="side of the window around the agent, odd; 0 shows the whole board")
        goal_reward: float = Field(1.0, ge=-1e6, le=1e6)
        hole_reward: float = Field(0.0, ge=-1e6, le=1e6)
        step_reward: float = Field(0.0, ge=-1e6, le=1e6, description="reward of a step that reaches neither goal nor hole")
        time_limit: int = Field(100, ge=0, le=MOST_STEPS, description="steps until an episode is truncated; 0 means never")

        @field_validator("view")
        @classmethod
        def _odd(cls, view: int) -> int:
            if view and view % 2 == 0:
                raise ValueError(f"view must be odd, so that the agent is in its middle: try {view + 1}")
            return view

        @model_validator(mode="after")
        def _layout(self) -> Any:
            if self.layout in ("maze", "open"):
                if self.layout == "maze" and (self.size % 2 == 0 or self.size < 5):
                    raise ValueError(f"a maze's size must be odd and at least 5: try {max(5, self.size + 1)}")
                if self.size < 4 and self.layout == "open":
                    raise ValueError("an open room needs size 4 or more: start and goal are different cells")
            else:
                parse_layout(self.layout)
            return self

    presets = {
        "frozenlake": Preset("Gymnasium's slippery FrozenLake, 4x4", {"layout": "frozenlake4", "slip": 2 / 3}),
    }

    class State(NamedTuple):
        tiles: Array  # uint8 (N, padded rows * padded columns + 7): flat boards with a rim of walls
        y: Array  # int64 (N,): row on the board, without the rim
        x: Array  # int64 (N,)

    class Constants(NamedTuple):
        height: int
        width: int
        window: int
        pad: int
        generated: bool  # grow a new maze at every reset
        rooms: bool  # start and goal stand in rooms (odd rows and columns) of a maze, else anywhere inside
        slip: float
        goal_reward: float
        hole_reward: float
        step_reward: float
        start_y: int
        start_x: int

    static = ("window", "pad", "generated")

    def _cells(self) -> Array | None:
        return None if self.config.layout in ("maze", "open") else parse_layout(self.config.layout)

    def _shape(self) -> tuple[int, int, int]:
        """Rows and columns of the board, and the rim around it."""
        cells = self._cells()
        height, width = cells.shape if cells is not None else (self.config.size, self.config.size)
        return height, width, max(self.config.view // 2, 1)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        height, width, _ = self._shape()
        view = self.config.view
        shape, top = ((view, view), HOLE) if view else ((height, width), AGENT)
        return gymnasium.spaces.Box(0, top, shape, np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(4)

    def _fixed(self) -> tuple[Array, int, int] | None:
        """Flat board and start of the one maze of this configuration, or None where each episode has its own."""
        height, width, pad = self._shape()
        cells = self._cells()
        board = np.full((height + 2 * pad, width + 2 * pad), WALL, np.uint8)
        if cells is not None:
            board[pad : pad + height, pad : pad + width] = np.vectorize(CODES.get)(cells)
            y, x = (int(v[0]) for v in np.nonzero(cells == "S"))
            return np.append(board, np.full(7, WALL, np.uint8)), y, x
        if self.config.fresh:
            return None
        one = self.State(np.append(board, np.full(7, WALL, np.uint8))[None], np.zeros(1, np.int64), np.zeros(1, np.int64))
        with np.errstate(over="ignore"):
            Maze.reset(one, 0, self._constants(True, 0, 0), fresh_streams(np.array([self.config.maze_seed])))
        return one.tiles[0], int(one.y[0]), int(one.x[0])

    def allocate(self, n: int) -> State:
        height, width, pad = self._shape()
        tiles = np.full((n, (height + 2 * pad) * (width + 2 * pad) + 7), WALL, np.uint8)
        fixed = self._fixed()
        if fixed:
            tiles[:] = fixed[0]
        return self.State(tiles, np.zeros(n, np.int64), np.zeros(n, np.int64))

    def _constants(self, generated: bool, y: int, x: int) -> Constants:
        height, width, pad = self._shape()
        o = self.config
        return self.Constants(
            height,
            width,
            o.view,
            pad,
            generated,
            o.layout == "maze",
            o.slip,
            o.goal_reward,
            o.hole_reward,
            o.step_reward,
            y,
            x,
        )

    def constants(self) -> Constants:
        fixed = self._fixed()
        return self._constants(False, *fixed[1:]) if fixed else self._constants(True, 0, 0)

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        if c.generated:
            tiles, stride = s.tiles[i], c.width + 2 * c.pad
            step = 2 if c.rooms else 1
            if c.rooms:
                carve_maze(tiles, stride, c.pad, c.width, rng, i, WALL, FLOOR)
            else:
                for y in range(1, c.height - 1):
                    for x in range(1, c.width - 1):
                        tiles[(y + c.pad) * stride + x + c.pad] = FLOOR
            side = (c.width - 1) // 2 if c.rooms else c.width - 2
            start = below(rng, i, side * side)
            goal = below(rng, i, side * side - 1)
            goal += 1 if goal >= start else 0  # uniform over the other places
            s.y[i], s.x[i] = step * (start // side) + 1, step * (start % side) + 1
            tiles[(step * (goal // side) + 1 + c.pad) * stride + step * (goal % side) + 1 + c.pad] = GOAL
        else:
            s.y[i], s.x[i] = c.start_y, c.start_x

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        d = slipped(rng, i, action[0], c.slip)
        y, x = s.y[i] + DY[d], s.x[i] + DX[d]
        tile = s.tiles[i, (y + c.pad) * (c.width + 2 * c.pad) + x + c.pad]
        if tile != WALL:
            s.y[i], s.x[i] = y, x
        reward[0] = c.goal_reward if tile == GOAL else c.hole_reward if tile == HOLE else c.step_reward
        return tile >= GOAL

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        stride = c.width + 2 * c.pad
        if c.window > 0:
            rim = c.pad - c.window // 2
            copy_window(s.tiles[i], (s.y[i] + rim) * stride + s.x[i] + rim, stride, c.window, out, 0, c.window * c.window)
        else:
            for y in range(c.height):
                for x in range(c.width):
                    out[y * c.width + x] = s.tiles[i, (y + c.pad) * stride + x + c.pad]
            out[s.y[i] * c.width + s.x[i]] = AGENT

    def _board(self, s: Any, i: int) -> Array:
        height, width, pad = self._shape()
        padded = s.tiles[i, :-7].reshape(height + 2 * pad, width + 2 * pad)
        return padded[pad : pad + height, pad : pad + width]

    def check_state(self, s: Any) -> str | None:
        height, width, pad = self._shape()
        boards = s.tiles[:, :-7].reshape(-1, height + 2 * pad, width + 2 * pad)
        inside = np.zeros(boards.shape[1:], np.bool_)
        inside[pad : pad + height, pad : pad + width] = True
        if outside(s.tiles, FLOOR, HOLE) or outside(boards[:, ~inside], WALL, WALL):
            return "tiles hold an unknown code or an open rim"
        return "y or x is off the board" if outside(s.y, 0, height - 1) or outside(s.x, 0, width - 1) else None

    def scene(self, s: Any, i: int) -> Scene:
        return Scene(np.array([".", "#", "G", "H"])[self._board(s, i)], (Entity(int(s.y[i]), int(s.x[i]), "agent"),))

    def model(self, s: Any, i: int) -> Model:
        """States: the cells that are not walls. Goals and holes are entered, never left: their episode is over."""
        board = self._board(s, i)
        height, width = board.shape
        rim = np.pad(board, 1, constant_values=WALL)
        y, x = np.nonzero(board != WALL)
        index = np.full(board.shape, -1)
        index[y, x] = np.arange(len(y))
        o = self.config
        next_state, probability = np.zeros((len(y), 4, 3), np.int64), np.zeros((len(y), 4, 3))
        reward, terminated = np.zeros((len(y), 4, 3)), np.zeros((len(y), 4, 3), np.bool_)
        for a in range(4):
            for outcome, (d, p) in enumerate(slip_outcomes(a, o.slip)):
                tile = rim[y + DY[d] + 1, x + DX[d] + 1]
                blocked = tile == WALL
                next_state[:, a, outcome] = index[np.where(blocked, y, y + DY[d]), np.where(blocked, x, x + DX[d])]
                probability[:, a, outcome] = p
                reward[:, a, outcome] = np.select([tile == GOAL, tile == HOLE], [o.goal_reward, o.hole_reward], o.step_reward)
                terminated[:, a, outcome] = tile >= GOAL
        return Model(next_state, probability, reward, terminated, int(index[s.y[i], s.x[i]]), {"y": y, "x": x})
