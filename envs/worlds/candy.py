"""Candy: one to eight collectors on a board of candies, with too little time to fetch them all."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ..core import MOST_STEPS, Array, Entity, Model, Scene, World, WorldConfig, outside, rule
from ..grid import DX, DY, slip_outcomes, slipped
from ..registry import world
from ..rng import below

MODEL_STATES = 40_000  # cells * 2^candies up to which an exact model is built


@world("candy")
class Candy(World):
    """Collect candies of different value before the time is up. Actions: left, down, right, up, stay.

    Observation, uint8 0/1 planes (planes, rows, columns): one plane per kind of candy; the agent itself (in a window:
    what lies outside the board); a clock, as many ones as steps are left (scaled if they are more than cells); where
    there are several agents, the others. view=0 shows the whole board, an odd view a window centred on the agent.
    Reward: the value of the candy stepped on. The episode is over when none is left or at the deadline. Several agents
    may share a cell; who moves first is drawn each step.
    """

    class Config(WorldConfig):
        size: int = Field(6, ge=2, le=32, description="rows and columns of the board")
        candies: int = Field(6, ge=1, le=64, description="candies at the start of an episode")
        values: tuple[float, ...] = Field((1.0, 2.0, 5.0), min_length=1, max_length=8, description="value of each kind")
        agents: int = Field(1, ge=1, le=8, description="collectors")
        slip: float = Field(0.1, ge=0, le=1, description="probability that a move goes to one of its two sides")
        view: int = Field(0, ge=0, le=63, description="side of the window around the agent, odd; 0 shows the whole board")
        deadline: int = Field(14, ge=1, le=10_000, description="steps until the game is over; the agent sees the clock")
        time_limit: int = Field(
            0, ge=0, le=MOST_STEPS, description="steps until an episode is truncated, unseen; 0 means never"
        )

        @field_validator("view")
        @classmethod
        def _odd(cls, view: int) -> int:
            if view and view % 2 == 0:
                raise ValueError(f"view must be odd, so that the agent is in its middle: try {view + 1}")
            return view

        @field_validator("values")
        @classmethod
        def _finite(cls, values: tuple[float, ...]) -> tuple[float, ...]:
            if not all(abs(v) <= 1e6 for v in values):
                raise ValueError("values must be finite and at most 1e6 in size")
            return values

        @model_validator(mode="after")
        def _room(self) -> Any:
            if self.candies + self.agents > self.size * self.size:
                raise ValueError(
                    f"{self.candies} candies and {self.agents} agents do not fit on {self.size * self.size} cells: "
                    "take a larger size or fewer candies"
                )
            return self

    class State(NamedTuple):
        candy: Array  # uint8 (N, cells): 0 nothing, 1 + kind
        y: Array  # int64 (N, A)
        x: Array  # int64 (N, A)
        left: Array  # int64 (N,): candies left
        time: Array  # int64 (N,): steps done

    class Constants(NamedTuple):
        size: int
        candies: int
        kinds: int
        agents: int
        window: int
        slip: float
        deadline: int
        values: Array  # float64 (kinds,)

    @property
    def horizon(self) -> int:
        return min(self.config.deadline, self.config.time_limit or self.config.deadline)

    static = ("kinds", "agents", "window", "size")

    @property
    def num_agents(self) -> int:
        return int(self.config.agents)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        side = self.config.view or self.config.size
        return gymnasium.spaces.Box(0, 1, (len(self.config.values) + 2 + (self.config.agents > 1), side, side), np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(5)

    def allocate(self, n: int) -> State:
        o = self.config
        place = (n, o.agents)
        return self.State(
            np.zeros((n, o.size * o.size), np.uint8), np.zeros(place, np.int64), np.zeros(place, np.int64),
            np.zeros(n, np.int64), np.zeros(n, np.int64),
        )  # fmt: skip

    def constants(self) -> Constants:
        o = self.config
        values = np.array(o.values, np.float64)
        return self.Constants(o.size, o.candies, len(values), o.agents, o.view, o.slip, o.deadline, values)

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        cells = c.size * c.size
        for j in range(cells):
            s.candy[i, j] = 0
        s.left[i], s.time[i] = c.candies, 0
        free = cells
        for k in range(c.agents):  # distinct cells for agents: 255 marks one while candies are laid
            while True:
                j = below(rng, i, cells)
                if s.candy[i, j] == 0:
                    break
            s.candy[i, j] = 255
            s.y[i, k], s.x[i, k] = j // c.size, j % c.size
            free -= 1
        needed = c.candies
        for j in range(cells):  # selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S)
            if s.candy[i, j] == 0:
                if below(rng, i, free) < needed:
                    s.candy[i, j] = 1 + below(rng, i, c.kinds)
                    needed -= 1
                free -= 1
        for k in range(c.agents):
            s.candy[i, s.y[i, k] * c.size + s.x[i, k]] = 0

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        first = below(rng, i, c.agents) if c.agents > 1 else 0
        for turn in range(c.agents):
            k = (first + turn) % c.agents
            d = slipped(rng, i, action[k], c.slip)
            y = min(max(s.y[i, k] + DY[d], 0), c.size - 1)
            x = min(max(s.x[i, k] + DX[d], 0), c.size - 1)
            s.y[i, k], s.x[i, k] = y, x
            kind = s.candy[i, y * c.size + x]
            if kind > 0:
                reward[k] += c.values[kind - 1]
                s.candy[i, y * c.size + x] = 0
                s.left[i] -= 1
        s.time[i] += 1
        return s.left[i] == 0 or s.time[i] >= c.deadline

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        side = c.window if c.window > 0 else c.size
        plane = side * side
        for j in range((c.kinds + (3 if c.agents > 1 else 2)) * plane):
            out[j] = 0
        top = s.y[i, k] - c.window // 2 if c.window > 0 else 0
        left = s.x[i, k] - c.window // 2 if c.window > 0 else 0
        for row in range(side):
            for column in range(side):
                y, x = top + row, left + column
                if 0 <= y < c.size and 0 <= x < c.size:
                    kind = s.candy[i, y * c.size + x]
                    if kind > 0:
                        out[(kind - 1) * plane + row * side + column] = 1
                else:
                    out[c.kinds * plane + row * side + column] = 1
        if c.window == 0:
            out[c.kinds * plane + s.y[i, k] * side + s.x[i, k]] = 1
        for other in range(c.agents):
            row, column = s.y[i, other] - top, s.x[i, other] - left
            if other != k and 0 <= row < side and 0 <= column < side:
                out[(c.kinds + 2) * plane + row * side + column] = 1
        ticks = c.deadline - s.time[i]
        if c.deadline > plane:
            ticks = (ticks * plane + c.deadline - 1) // c.deadline
        for j in range(ticks):
            out[(c.kinds + 1) * plane + j] = 1

    def check_state(self, s: Any) -> str | None:
        o = self.config
        if outside(s.candy, 0, len(o.values)) or outside(s.left, 0, o.candies):
            return "candy holds an unknown kind, or left is out of bounds"
        wrong = outside(s.y, 0, o.size - 1) or outside(s.x, 0, o.size - 1) or outside(s.time, 0, o.deadline)
        return "y, x or time is out of bounds" if wrong else None

    def scene(self, s: Any, i: int) -> Scene:
        o = self.config
        where = np.flatnonzero(s.candy[i])
        candies = [Entity(int(j) // o.size, int(j) % o.size, "candy", int(s.candy[i, j]) - 1) for j in where]
        agents = [Entity(int(s.y[i, k]), int(s.x[i, k]), "agent", k) for k in range(o.agents)]
        caption = f"{o.deadline - int(s.time[i])} steps left"
        return Scene(np.full((o.size, o.size), "."), (*candies, *agents), caption=caption)

    def model(self, s: Any, i: int) -> Model | None:
        """States: (set of candies left, cell), for one agent. State index = set * cells + cell."""
        o = self.config
        where = np.flatnonzero(s.candy[i])
        cells, sets = o.size * o.size, 1 << len(where)
        if o.agents > 1 or cells * sets > MODEL_STATES:
            return None
        bit = np.zeros(cells, np.int64)
        bit[where] = 1 << np.arange(len(where))
        worth = np.where(s.candy[i] > 0, np.array(o.values)[s.candy[i].astype(np.int64) - 1], 0.0)
        y, x = np.divmod(np.arange(cells), o.size)
        subset = np.arange(sets)[:, None]
        shape = (sets, cells, 5, 3)
        next_state, probability = np.zeros(shape, np.int64), np.zeros(shape)
        reward, terminated = np.zeros(shape), np.zeros(shape, np.bool_)
        for a in range(5):
            for outcome, (d, p) in enumerate(slip_outcomes(a, o.slip)):
                cell = np.clip(y + DY[d], 0, o.size - 1) * o.size + np.clip(x + DX[d], 0, o.size - 1)  # (cells,)
                taken = (subset & bit[cell]) > 0  # (sets, cells)
                after = subset & ~bit[cell]
                next_state[:, :, a, outcome] = after * cells + cell
                probability[:, :, a, outcome] = p
                reward[:, :, a, outcome] = taken * worth[cell]
                terminated[:, :, a, outcome] = after == 0
        flat = (sets * cells, 5, 3)
        left = (np.arange(sets)[:, None] >> np.arange(len(where))) & 1  # (sets, candies)
        board = np.zeros((sets, cells), np.uint8)
        board[:, where] = left * s.candy[i, where]
        fields = {
            "candy": np.repeat(board, cells, axis=0),
            "y": np.tile(y, sets)[:, None],
            "x": np.tile(x, sets)[:, None],
            "left": np.repeat(left.sum(1), cells),
        }
        start = (sets - 1) * cells + int(s.y[i, 0]) * o.size + int(s.x[i, 0])
        return Model(
            next_state.reshape(flat),
            probability.reshape(flat),
            reward.reshape(flat),
            terminated.reshape(flat),
            start,
            fields,
        )
