"""Candy: one to eight collectors on a board of candies, with too little time to fetch them all.

The defaults are a small shortest-path problem for one collector. Dials turn it into the social worlds of the
literature: payoffs to others, regrowth, waste, changing values, candies that need two, zapping, gifts, duels, scripted
inhabitants. What a configuration does not use is compiled away: `features` is a constant to the compiler.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ....store.arrays import Array
from ...grid import DX, DY, copy_window
from ...registry import world
from ...rng import below, bits
from ...world import Entity, Game, Model, Scene, World, rule
from . import config, exact, state
from .features import (
    BLOCK,
    CLEANING,
    DRAWN,
    DRIFT,
    DUEL,
    ENDLESS,
    FIRST,
    GIFT,
    GROW,
    HIDDEN,
    INHABITED,
    JOINT,
    LEVELS,
    NOBODY,
    NOISE,
    OUTSIDE,
    PLAIN,
    REACT,
    SEASONS,
    SIGNAL,
    SPOTS,
    STATUS,
    SWITCH,
    ZAP,
)
from .growth import grow, revalue
from .inhabitants import NAMES, intent
from .observation import misread, spread, spread_one, tell, word
from .social import act, chosen, fight
from .taking import cell_of, mover, pay, removed, slid, take_together


@world("candy")
class Candy(World):
    """Collect candies of different value before the time is up.

    Actions: left, down, right, up, stay; then those of the configuration, in this order: zap, gift, signal, clean. Who
    acts stays where it is. Social actions come first, then the moves, in an order drawn each step (see `tie`).

    Observation, uint8 0/1 planes (planes, rows, columns): one plane per kind of candy (with `hidden_kinds` one for all;
    with `owned` the agent's own kind first); the agent itself (in a window: what lies outside the board); a clock, as
    many ones as steps are left (scaled if they are more than cells); where there are several collectors, the others; with
    regrowth=cleaning the waste; where something else is to be known a status plane, whose cells hold, row by row: the
    season (one of the kinds), whether the agent is frozen, the others' signals, the levels of all from the agent on
    (as many ones), its inventory (four cells a kind), the inhabitants' types unless hidden. view=0 shows the whole board,
    an odd view a window centred on the agent.

    Reward: the value of the candy stepped on, unless `payoff` says otherwise. The episode is over at the deadline, and
    when no candy is left unless they grow again or duels remain. Collectors may share a cell (see `collision`).
    Inhabitants are the last collectors; they follow `inhabitants.py` beside this file and are no agents of the world.
    """

    presets = config.PRESETS
    Config = config.Config
    State = state.State
    static = ("kinds", "agents", "bodies", "window", "size", "features")

    @property
    def horizon(self) -> int:
        return min(self.config.deadline, self.config.time_limit or self.config.deadline)

    @property
    def num_agents(self) -> int:
        return int(self.config.agents)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        o, side = self.config, self.config.view or self.config.size
        planes = (1 if o.hidden_kinds else len(o.values)) + 2 + (o.bodies > 1) + (o.regrowth == "cleaning")
        return gymnasium.spaces.Box(0, 1, (planes + (o.status_bits > 0), side, side), np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        o = self.config
        return gymnasium.spaces.Discrete(5 + (o.zap > 0) + (o.gift > 0) + o.signal + (o.regrowth == "cleaning"))

    def allocate(self, n: int) -> state.State:
        return state.allocate(self.config, n)

    def constants(self) -> state.CandyConstants:
        return state.constants(self.config)

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        pad = c.window // 2
        stride, board = c.size + 2 * pad, s.candy[i]
        if c.window > 0:
            for j in range(stride * stride):
                board[j] = OUTSIDE
            for j in range(c.size * c.size):
                board[(j // c.size + pad) * stride + j % c.size + pad] = 0
        else:
            for j in range(c.size * c.size):
                board[j] = 0
        s.left[i], s.time[i] = c.candies, 0
        start, free = c.river_cells, c.size * c.size - c.river_cells
        for k in range(c.bodies):  # distinct cells for collectors: marked while candies are laid
            while True:
                j = start + below(rng, i, c.size * c.size - start)
                y, x = j // c.size, j % c.size
                if board[(y + pad) * stride + x + pad] == 0:
                    break
            board[(y + pad) * stride + x + pad] = NOBODY
            s.y[i, k], s.x[i, k] = y, x
            free -= 1
        needed = c.candies
        for j in range(start, c.size * c.size):  # selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, S)
            at = j if c.window == 0 else (j // c.size + pad) * stride + j % c.size + pad
            if board[at] == 0:
                if below(rng, i, free) < needed:
                    kind = 1 + below(rng, i, c.kinds)
                    board[at] = kind
                    if c.features & SPOTS:
                        s.spot[i, c.candies - needed], s.grows[i, c.candies - needed] = at, kind
                    needed -= 1
                free -= 1
        for k in range(c.bodies):
            board[cell_of(s, i, k, c)] = 0
        if c.features & CLEANING:
            s.waste[i] = c.waste_start
            needed = c.waste_start
            for j in range(c.river_cells):
                if below(rng, i, c.river_cells - j) < needed:
                    board[(j // c.size + pad) * stride + j % c.size + pad] = c.kinds + 1
                    needed -= 1
        if c.features & (DRIFT | REACT):
            for kind in range(1, c.kinds + 1):
                s.value[i, kind] = c.worth[kind]
        s.shift[i], s.phase[i] = 0, 0
        for k in range(c.bodies):
            if c.features & (JOINT | LEVELS | INHABITED):
                s.level[i, k] = 1 + below(rng, i, c.most_level) if c.features & LEVELS else 1
            if c.features & (ZAP | INHABITED):
                s.frozen[i, k] = 0
            if c.features & SIGNAL:
                s.signal[i, k] = 0
            if c.features & DUEL:
                for kind in range(c.kinds):
                    s.pocket[i, k * c.kinds + kind] = 0
            if c.features & INHABITED:
                s.grudge[i, k], s.intent[i, k] = 0, 0
                if k >= c.agents:
                    s.type[i, k] = c.types[below(rng, i, c.types.shape[0]) if c.features & DRAWN else k - c.agents]
        if c.features & NOISE:
            s.noise[i] = bits(rng, i)

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        board = s.candy[i]
        if c.features & INHABITED:
            for k in range(c.agents):
                s.intent[i, k] = action[k]
            for k in range(c.agents, c.bodies):
                s.intent[i, k] = intent(s, i, k, c, rng)
        if c.features & (ZAP | GIFT | SIGNAL | CLEANING):
            for k in range(c.bodies):
                act(s, i, k, int(s.intent[i, k]) if c.features & INHABITED else action[k], c, reward)
        first = below(rng, i, 2 * c.bodies if c.bodies > 2 else 2) if c.bodies > 1 and (c.features & FIRST) == 0 else 0
        for turn in range(c.bodies):
            k = mover(first, turn, c)
            d = slid(rng, i, chosen(s, i, k, int(s.intent[i, k]) if c.features & INHABITED else action[k], c), c.slip)
            y = min(max(int(s.y[i, k]) + DY[d], 0), c.size - 1)
            x = min(max(int(s.x[i, k]) + DX[d], 0), c.size - 1)
            if c.features & BLOCK:
                blocked = False
                for o in range(c.bodies):
                    blocked |= (o != k) & (s.y[i, o] == y) & (s.x[i, o] == x)
                y, x = (int(s.y[i, k]) if blocked else y), (int(s.x[i, k]) if blocked else x)
            s.y[i, k], s.x[i, k] = y, x
            at = cell_of(s, i, k, c)
            kind = int(board[at])
            if c.features & PLAIN:  # without a branch: nothing is worth nothing
                reward[k] += c.worth[kind]
                board[at] = 0
                s.left[i] -= kind > 0
            elif (c.features & JOINT) == 0 and 0 < kind <= c.kinds:
                pay(s, i, k, kind, 1.0, c, reward)
                removed(s, i, at, kind, c, rng)
        if c.features & JOINT:
            take_together(s, i, first, c, rng, reward)
        if c.features & DUEL:
            fight(s, i, c, reward)
        if c.features & GROW:
            grow(s, i, c, rng)
        if c.features & (DRIFT | SEASONS | SWITCH):
            revalue(s, i, c, rng)
        if c.features & ZAP:
            for k in range(c.bodies):
                s.frozen[i, k] -= s.frozen[i, k] > 0
        if c.features & NOISE:
            s.noise[i] = bits(rng, i)
        s.time[i] += 1
        return ((c.features & ENDLESS) == 0 and s.left[i] == 0) or s.time[i] >= c.deadline

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        side = c.window if c.window > 0 else c.size
        plane, board = side * side, s.candy[i]
        shown = 1 if c.features & HIDDEN else c.kinds
        top = int(s.y[i, k]) - c.window // 2 if c.window > 0 else 0
        left = int(s.x[i, k]) - c.window // 2 if c.window > 0 else 0
        if c.window > 0:  # the window's codes go to the first plane, and from there, the first plane last, to all others
            at = int(s.y[i, k]) * (c.size + 2 * (c.window // 2)) + int(s.x[i, k])
            copy_window(board, at, c.size + 2 * (c.window // 2), c.window, out, 0, plane)
        elif c.features & NOISE:
            for j in range(plane):
                out[j] = board[j]
        if c.features & NOISE:
            misread(s, i, k, c, out, plane)
        codes = out if c.window > 0 or c.features & NOISE else board
        last = shown + (3 if c.bodies > 1 else 2)
        waste = -1
        if c.features & CLEANING:
            waste = last * plane
            last += 1
        for j in range(0, plane - plane % 8, 8):
            spread(word(codes, np.uint64(j)), k, c, out, j, plane, shown, waste)
        for j in range(plane - plane % 8, plane):
            spread_one(codes[j], k, c, out, j, plane, shown, waste)
        if c.window == 0:
            out[np.uint64(shown * plane + int(s.y[i, k]) * side + int(s.x[i, k]))] = 1
        begin = np.uint64(plane - int(c.clock[min(s.time[i], c.deadline)]))
        for j in range(plane):
            out[np.uint64((shown + 1) * plane + j)] = c.ramp[begin + np.uint64(j)]
        if c.bodies > 1:
            base = (shown + 2) * plane
            for j in range(plane):
                out[np.uint64(base + j)] = 0
            for o in range(c.bodies):
                row, column = int(s.y[i, o]) - top, int(s.x[i, o]) - left
                seen = (o != k) & (row >= 0) & (row < side) & (column >= 0) & (column < side)
                out[np.uint64(base + (row * side + column if seen else 0))] |= seen
        if c.features & STATUS:
            for j in range(plane):
                out[np.uint64(last * plane + j)] = 0
            tell(s, i, k, c, out, last * plane)

    def check_state(self, s: Any) -> str | None:
        return state.fault(self.config, s)

    def scene(self, s: Any, i: int) -> Scene:
        o = self.config
        pad = o.view // 2
        stride = o.size + 2 * pad
        board = s.candy[i, : stride * stride].reshape(stride, stride)[pad : pad + o.size, pad : pad + o.size]
        kinds = len(o.values)
        candies = [
            Entity(int(y), int(x), "candy" if board[y, x] <= kinds else "waste", int(board[y, x]) - 1)
            for y, x in np.argwhere(board)
        ]
        agents = [Entity(int(s.y[i, k]), int(s.x[i, k]), "agent", k) for k in range(o.bodies)]
        caption = f"{o.deadline - int(s.time[i])} steps left"
        cells = np.full((o.size, o.size), ".")
        if o.regrowth == "cleaning":
            cells[: o.river] = "~"
            caption += f", waste {int(s.waste[i])} of {o.river * o.size}"
        if o.bodies > o.agents:
            caption += f", from {o.agents} on: " + ", ".join(NAMES[t] for t in s.type[i, o.agents :])
        if o.zap and (s.frozen[i] > 0).any():
            caption += ", frozen: " + ", ".join(str(k) for k in np.flatnonzero(s.frozen[i] > 0))
        return Scene(cells, (*candies, *agents), caption=caption)

    def sight(self, obs: Array) -> Scene | None:
        o, side = self.config, obs.shape[-1]
        shown = 1 if o.hidden_kinds else len(o.values)
        entities = [Entity(y, x, "candy", k) for k in range(shown) for y, x in np.argwhere(obs[k]).tolist()]
        cells = np.full((side, side), ".")
        if o.view:
            cells[obs[shown] > 0] = "#"  # outside the board
            entities.append(Entity(side // 2, side // 2, "agent"))
        else:
            entities += [Entity(y, x, "agent") for y, x in np.argwhere(obs[shown]).tolist()]
        if o.bodies > 1:
            entities += [Entity(y, x, "agent", 1) for y, x in np.argwhere(obs[shown + 2]).tolist()]
        if o.regrowth == "cleaning":
            waste = obs[shown + 2 + (o.bodies > 1)]
            entities += [Entity(y, x, "waste", 0) for y, x in np.argwhere(waste).tolist()]
        return Scene(cells, tuple(entities))

    @property
    def solver(self) -> str:
        return exact.solver(self.config)

    def model(self, s: Any, i: int) -> Model | None:
        return exact.model(self.config, s, i)

    def game(self, s: Any, i: int) -> Game | None:
        return exact.game(self.config, s, i)
