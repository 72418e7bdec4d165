"""Mazes: boards of tiles from a generator or an ASCII layout, seen whole, through a window or by coordinates.

The default is the plain game: walk to the goal, mind the holes. Everything else is an option that costs nothing where it
is not used: the rules of the plain game are compiled apart, with the window's size in the code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ....store.arrays import Array
from ...grid import DX, DY, RIGHT, copy_block, copy_window, turned
from ...registry import world
from ...rng import below, fresh_streams, unit
from ...world import Entity, Model, Scene, World, Yardstick, outside, rule
from . import exact
from .boards import Boards, shared_boards
from .config import PRESETS, MazeConfig
from .constants import SHOWS, MazeConstants, constants
from .generators import generate, scratch_size
from .moves import COLUMN, DOWN_LEFT, EIGHT, ENTER, FALL, ROW, STRAIGHT, TURN
from .tiles import (  # fmt: skip
    AGENT,
    CHARACTERS,
    CODES,
    CUE,
    DECOY,
    DOOR,
    FLOOR,
    GENERATORS,
    GOAL,
    HEADING,
    HOLDER,
    HOLE,
    ICE,
    KEY,
    MEANING,
    ONE_WAY,
    TELEPORT,
    UNSEEN,
    WALL,
)

SHOW_RGB, SHOW_COORDINATES = (SHOWS.index(name) for name in ("rgb", "coordinates"))
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


@world("maze")
class Maze(World):
    """Walk to the goal. Reward: `goal_reward` at the goal, `hole_reward` in a hole, `step_reward` for any other step.

    Actions. moves=four: left, down, right, up. eight: left, down-left, down, down-right, right, up-right, up, up-left.
    turn: turn left, turn right, forward. fall: left, right, always a row down. `stay` adds one at the end: stay.
    Observation, uint8. observe=codes: the window's or board's codes (see tiles.py; 0 floor, 1 wall, 2 goal, 3 hole,
    and on the whole board 4 the agent). rgb: the same as colours, planes (3, rows, columns). coordinates: row, column,
    then the heading (moves=turn) and the keys (where there are keys). With moves=turn a window turns with the agent, up is
    ahead. In a window the middle shows a key while the agent carries one.

    Ice: one slides on until something stops one or the ice ends. One-way tiles (< v > ^) are entered only in their
    direction (with a diagonal move: or beside it). Entering a teleporter leads to the other of the pair. A key is taken
    by entering, a locked door takes a key to enter. Diagonal moves look at the cell they enter, not at its neighbours.
    A slipping move goes to one of its two sides: by 90 degrees, with eight moves by 45, in a fall to the other one.
    With mask_walls an action that would run into a wall, a locked door or against a one-way tile is illegal, as far as another
    one is left; what slips is not asked for.
    With occlusion a cell is seen where no wall or locked door lies on the straight line to it, rounded half away from 0.
    """

    Config = MazeConfig
    presets = PRESETS

    class State(NamedTuple):
        tiles: Array  # uint8 (N, P): boards of their own, flat, with a rim of walls; (N, 1) where environments share boards
        scratch: Array  # int32 (N, at least 1): what a generator works with; nothing depends on it between resets
        level: Array  # int32 (N,): which shared board
        cell: Array  # int32 (N,): where the agent is: (row + pad) * stride + column + pad
        start: Array  # int32 (N,): flat cell
        goal: Array  # int32 (N,): flat cell of the goal, of the first of several
        heading: Array  # int8 (N,): left, down, right, up; moves=turn
        keys: Array  # int8 (N,)
        last: Array  # int8 (N,): the action before, -1 at first; sticky > 0

    static = (
        "plain", "mine", "window", "span", "rim", "own", "side", "kind", "moves", "hidden", "random_start", "random_goal",
        "shaping", "show", "occluded", "has_keys",
    )  # fmt: skip

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        o, (height, width, _) = self.config, self.config.shape
        if o.observe == "coordinates":
            high = [height - 1, width - 1] + [3] * (o.moves == "turn") + [127] * o.has_keys
            return gymnasium.spaces.Box(np.zeros(len(high), np.uint8), np.array(high, np.uint8), dtype=np.uint8)
        shape = (o.view, o.view) if o.view else (height, width)
        if o.observe == "rgb":
            return gymnasium.spaces.Box(0, 255, (3, *shape), np.uint8)
        codes = [HOLE if o.view else AGENT, DOOR if o.changes else 0, CUE + 1 if o.has("C") else 0]
        codes += [] if o.cells is None else [MEANING[c] for c in set(o.cells.ravel().tolist())]
        if not o.view:
            codes += [HEADING + 3 if o.moves == "turn" else 0, HOLDER + 4 if o.has_keys else 0]
        return gymnasium.spaces.Box(0, UNSEEN if o.occlusion else max(codes), shape, np.uint8)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(self.config.num_actions)

    def allocate(self, n: int) -> State:
        height, width, pad = self.config.shape
        o = self.config
        area = (height + 2 * pad) * (width + 2 * pad) + 7 if self.config.own_boards else 1
        spare = scratch_size(GENERATORS.index(o.layout), o.size) if o.is_fresh else 1
        small = (np.zeros(n, np.int8) for _ in range(3))
        large = (np.zeros(n, np.int32) for _ in range(4))
        return self.State(
            np.full((n, area), WALL if self.config.own_boards else 0, np.uint8), np.zeros((n, spare), np.int32), *large, *small
        )

    def constants(self) -> MazeConstants:
        return constants(self.config, grow)

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
            at = np.uint64(there)  # an unsigned index needs no wrap-around
            tile = s.tiles[i, at] if c.mine else c.boards[s.level[i], at]
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

    @rule
    def legal(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        cell = np.int64(s.cell[i])
        found = False
        for a in range(out.shape[0]):
            out[a] = True
            d, goes = np.int64(2 * a), True
            if c.plain:
                at = cell + DY[a] * c.span + DX[a]
                tile = s.tiles[i, at] if c.mine else c.boards[s.level[i], at]
                out[a] = tile != WALL
            else:
                goes = a != c.stay
                if c.moves == EIGHT:
                    d = np.int64(a)
                elif c.moves == TURN:
                    goes = a == 2
                    d = np.int64(2 * s.heading[i])
                if goes:
                    tiles = s.tiles[i] if c.own else c.boards[s.level[i]]
                    tile = tiles[cell + ROW[d] * c.stride + COLUMN[d]]
                    out[a] = ((ENTER[tile] >> d) & 1) == 1 and (tile != DOOR or s.keys[i] > 0)
            found = found or out[a]
        if not found:
            for a in range(out.shape[0]):
                out[a] = True

    # --- what others ask

    @property
    def masked(self) -> bool:
        return bool(self.config.mask_walls)

    def _flat(self, s: Any, i: int) -> Array:
        """The flat board of environment i, rim and spare bytes included."""
        return np.asarray(s.tiles[i] if self.config.own_boards else shared_boards(self.config, grow).tiles[s.level[i]])

    def _place(self, cell: Any) -> tuple[Any, Any]:
        """Row and column, without the rim, of flat cells."""
        _, width, pad = self.config.shape
        stride = width + 2 * pad
        return cell // stride - pad, cell % stride - pad

    def places(self, model: Model) -> tuple[Array, Array]:
        """Row and column of the agent in each state of a model of this world, int64 (S,) each: for drawings."""
        y, x = self._place(model.fields["cell"].astype(np.int64))
        return y, x

    def _board(self, s: Any, i: int) -> Array:
        height, width, pad = self.config.shape
        padded = self._flat(s, i)[:-7].reshape(height + 2 * pad, width + 2 * pad)
        return padded[pad : pad + height, pad : pad + width]

    def check_state(self, s: Any) -> str | None:
        height, width, pad = self.config.shape
        shape = height + 2 * pad, width + 2 * pad
        inside = np.zeros(shape, np.bool_)
        inside[pad : pad + height, pad : pad + width] = True
        if self.config.own_boards:
            boards = s.tiles[:, :-7].reshape(-1, *shape)
            if outside(s.tiles, FLOOR, DECOY) or outside(boards[:, ~inside], WALL, WALL):
                return "tiles hold an unknown code or an open rim"
        drawn = shared_boards(self.config, grow).tiles
        if outside(s.level, 0, len(drawn) - 1):
            return "level is not one of the boards"
        if self.config.own_boards:  # only what may come up here: a teleporter where none was drawn leads out of all arrays
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
        keys = f"keys: {s.keys[i]}" if self.config.has_keys else ""
        if (board == CUE).any() or (board == CUE + 1).any():
            keys = f"cue: {int((board == CUE + 1).any())}"
        return Scene(cells, entities, caption=keys)

    def sight(self, obs: Array) -> Scene | None:
        o = self.config
        if o.observe != "codes":
            return None
        entities = []
        cells = np.array(list(CHARACTERS))[np.minimum(obs, CODES - 1)]
        if o.view:
            entities.append(Entity(o.view // 2, o.view // 2, "agent"))
        for row, column in np.argwhere((obs == AGENT) | ((obs >= HEADING) & (obs < UNSEEN))).tolist():
            cells[row, column] = "."
            code = int(obs[row, column])
            entities += [Entity(row, column, "agent")] * (not o.view)
            if code not in (AGENT, HOLDER):
                entities.append(Entity(row, column, "heading", (code - HEADING) % (HOLDER + 1 - HEADING)))
        return Scene(cells, tuple(entities))

    # --- exactness

    @property
    def solver(self) -> str:
        if self.config.solved_by_search:
            return "search"
        return "dynamic programming" if self.config.solved_by_model else ""

    def model(self, s: Any, i: int) -> Model | None:
        return exact.model_of(self.config, self.constants(), self._flat(s, i).copy(), s, i)

    def yardstick(self, s: Any) -> Yardstick | None:
        """Of goals that an agent must look for; other configurations have their model's."""
        if not self.config.solved_by_search:
            return None
        random, optimal, bound = exact.searched(self.config, grow)
        n = len(s.level)
        meaning = "best found for an agent that must look for the goal, on average over goals"
        meaning = meaning.replace("best found", "optimum") if bound - optimal < 1e-9 else f"{meaning} (at most {bound:.2f})"
        return Yardstick(np.full(n, random), np.full(n, optimal), meaning)


def grow(o: Any, seeds: Array) -> Boards:
    """One board of the generator for each seed. The rules that make fresh boards make them: compiled, where it is many."""
    fresh = type(o)(layout=o.layout, size=o.size, rooms=o.rooms, loops=o.loops, view=o.view, observe="coordinates")
    world = Maze(fresh)
    if len(seeds) > 16:
        from ...engine.engine import Engine

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
