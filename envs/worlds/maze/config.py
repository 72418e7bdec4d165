"""Options of mazes, which of them fit together, and what follows from them; the presets."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from ....store.arrays import Array
from ...solvers.search import MOST_CELLS
from ...world import MOST_STEPS, Preset, WorldConfig
from .moves import MOVES, distances
from .tiles import FITTED, FLOOR, GENERATORS, GOAL, LAYOUTS, MOST, OPEN, ROOMS, codes_of, padded, parse_layout

LEVEL_CELLS = 2**25  # cells, rims included, of all levels together: some ten bytes each
SIZE = 11  # of boards, unless told
MODEL_STATES = 2**20  # that an exact model may have
MODEL_ENTRIES = 12_000_000  # states * actions * outcomes of a model: 25 bytes each
MODEL_TILES = 2**28  # bytes of all states' boards, where play changes the board


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
    if o.goal == "random" and o.layout == "door-key":
        raise ValueError("layout=door-key has its goal behind the door: leave goal out")
    if o.is_fresh:
        known = "set fresh=false or levels, or leave it out"
        if o.start == "random" or o.goal == "random":
            raise ValueError(
                f"a fresh board's start and goal are drawn with it, start and goal are for boards that stay: {known}"
            )
        if o.maze_seed:
            raise ValueError(f"maze_seed chooses boards that stay, here each episode has a fresh one: {known}")
    cells = (o.levels + o.held_out) * (o.size + 2 * o.shape[2]) ** 2
    if cells > LEVEL_CELLS:
        raise ValueError(
            f"levels and held_out together have {cells:,} cells, more than {LEVEL_CELLS:,}: fewer, or a smaller size"
        )


def _check_layout(o: Any) -> None:
    """Raise ValueError where a layout and the options about start and goal do not fit."""
    if o.layout not in FITTED and o.size != SIZE:
        raise ValueError(f"size is for generated boards and for {', '.join(FITTED)}: this layout has its own, leave size out")
    if o.layout in FITTED and o.size > MOST - 4:
        raise ValueError(f"layout={o.layout} takes size {MOST - 4} at most")
    cells = o.cells
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
    if not _solvable(o.layout, o.size, o.start, o.goal, o.moves):
        raise ValueError("layout: no way leads from the start to a goal, even with all doors open where there is a key")


@functools.lru_cache(maxsize=64)
def _read(layout: str, size: int, start: bool, goal: bool) -> Array:
    return parse_layout(layout, size, start, goal)


@functools.lru_cache(maxsize=64)
def _solvable(layout: str, size: int, start: str, goal: str, moves: str) -> bool:
    """Whether a way leads from some start to some goal, to every goal where a cue tells which; doors open if there is a key."""
    cells = _read(layout, size, start == "layout", goal == "layout")
    board, stride = padded(codes_of(cells), 1), cells.shape[1] + 2
    floor = np.flatnonzero(board == FLOOR)
    begin = np.flatnonzero(padded(codes_of(np.where(cells == "S", "G", ".")), 1) == GOAL) if start == "layout" else floor
    ends = np.flatnonzero(board == GOAL) if goal == "layout" else floor
    groups = ends[:, None] if (cells == "C").any() else ends[None]
    ways = [distances(board, group, stride, moves, keys=int((cells == "K").any()))[begin].min() for group in groups]
    return max(ways) < len(board)


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


class MazeConfig(WorldConfig):
    layout: str = Field("maze", description="a generator, a named layout or ASCII rows like S.#/..G (see tiles.py)")
    size: int = Field(SIZE, ge=3, le=MOST, description="rows and columns of generated boards, walls included; odd for mazes")
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
    mask_walls: bool = Field(False, description="action masks: moves into walls and locked doors are illegal")
    slip: float = Field(0.0, ge=0, le=1, description="probability that a move goes to one of its two sides")
    sticky: float = Field(0.0, ge=0, le=1, description="probability that the action before is taken once more")
    view: int = Field(7, ge=0, le=201, description="side of the window around the agent, odd; 0 shows the whole board")
    occlusion: bool = Field(False, description="walls and locked doors block the sight in a window")
    observe: Literal["codes", "rgb", "coordinates"] = Field("codes", description="what an observation is made of")
    goal_ends: bool = Field(True, description="false: the goal pays every step that one stands on it, and ends nothing")
    hole_ends: bool = Field(True, description="false: a hole puts back to the start")
    goal_reward: float = Field(1.0, ge=-1e6, le=1e6, description="reward for reaching the goal")
    hole_reward: float = Field(0.0, ge=-1e6, le=1e6, description="reward for falling into a hole")
    step_reward: float = Field(0.0, ge=-1e6, le=1e6, description="reward of a step that reaches neither goal nor hole")
    move_cost: float = Field(0.0, ge=-1e6, le=1e6, description="moves=fall: price of a move to the right")
    shaping: Literal["none", "manhattan", "distance"] = Field("none", description="potential: minus the distance to the goal")
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
        if self.rooms != 3 and self.layout != "rooms":
            raise ValueError("rooms is for layout=rooms: leave it out")
        if self.loops and self.layout not in ("braided", "rooms"):
            raise ValueError("loops is for layout=braided and layout=rooms: leave it out")
        if self.goal_distance > 1 and self.goal == "layout":
            raise ValueError("goal_distance is for goals that are drawn: set goal=random, or leave it out")
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
        if self.moves == "fall" and self.mask_walls:
            raise ValueError("moves=fall has no move that a wall stops: leave mask_walls out")
        if self.shaping == "distance" and ((self.layout in GENERATORS and self.is_fresh) or self.goal == "random"):
            raise ValueError("shaping=distance needs boards known beforehand: levels, fresh=false, or shaping=manhattan")
        return self

    @property
    def is_fresh(self) -> bool:
        """Whether each episode grows a board of its own."""
        return self.layout in GENERATORS and self.fresh and not self.levels

    @property
    def cells(self) -> Array | None:
        """Characters (H, W) of the layout, a named one without its S or G where they are drawn; None for generators."""
        if self.layout in GENERATORS:
            return None
        return _read(self.layout, self.size, self.start == "layout", self.goal == "layout")

    def has(self, characters: str) -> bool:
        """Whether the layout has one of these."""
        return self.cells is not None and bool(np.isin(self.cells, list(characters)).any())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows and columns of the board, and the rim around it."""
        height, width = self.cells.shape if self.cells is not None else (self.size, self.size)
        return height, width, max(self.view // 2, 1)

    @property
    def num_actions(self) -> int:
        return (4, 8, 3, 2)[MOVES.index(self.moves)] + self.stay

    @property
    def has_keys(self) -> bool:
        return self.layout == "door-key" or self.has("K")

    @property
    def changes(self) -> bool:
        """Whether play changes the board: keys, doors and cues."""
        return self.layout == "door-key" or self.has("KDC")

    @property
    def own_boards(self) -> bool:
        """Whether each environment has a board of its own."""
        return self.is_fresh or self.changes or (self.goal == "random" and self.show_goal)

    @property
    def plain(self) -> bool:
        """Whether the rules that are compiled apart, for speed, are enough."""
        usual = self.moves == "four" and not self.stay and self.sticky == 0 and self.shaping == "none"
        seen = self.observe == "codes" and self.view > 0 and not self.occlusion and self.show_goal
        fixed = self.layout == "maze" if self.is_fresh else (self.start == "layout" and self.goal == "layout")
        simple = self.cells is None or bool(np.isin(self.cells, list(".FS#GH")).all())
        return usual and seen and fixed and simple and self.goal_ends and self.hole_ends and not self.changes

    @property
    def solved_by_model(self) -> bool:
        """Whether the exact model is small enough to be built; from the options alone."""
        height, width, pad = self.shape
        items = 2 if self.layout == "door-key" else int(np.isin(self.cells, ("K", "D")).sum()) if self.cells is not None else 0
        memory = (4 if self.moves == "turn" else 1) * (self.num_actions + 1 if self.sticky else 1)
        states = height * width * memory * 2 ** min(items, 40)
        entries = states * self.num_actions * (3 if self.slip else 1) * (2 if self.sticky else 1)
        tiles = states * (height + 2 * pad) * (width + 2 * pad) if items else 0
        return states <= MODEL_STATES and entries <= MODEL_ENTRIES and tiles <= MODEL_TILES

    @property
    def solved_by_search(self) -> bool:
        """Whether an agent must look for a goal that it cannot see, and envs/solvers/search.py can tell how well."""
        looking = self.goal == "random" and not self.show_goal and not self.goal_ends and self.start == "layout"
        sure = self.slip == 0 and self.sticky == 0 and self.shaping == "none" and not self.changes and not self.has("H")
        moves = self.stay and self.moves in ("four", "eight") and self.time_limit > 0
        height, width, _ = self.shape
        free = not self.is_fresh and not self.mask_walls
        return looking and sure and moves and free and not self.levels and height * width <= MOST_CELLS


PRESETS = {
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
