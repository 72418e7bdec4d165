"""Continuous navigation: a point in the plane, or in a maze of walls, and a goal that it has to find."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from pydantic import Field, field_validator, model_validator

from ...store.arrays import Array
from ..registry import world
from ..rng import below, fresh_streams, normal, unit
from ..world import MOST_STEPS, Entity, Preset, Scene, World, WorldConfig, Yardstick, helper, outside, rule

SQUARE, DISK, CIRCLE, HALF_CIRCLE = range(4)
GOALS = {"square": SQUARE, "disk": DISK, "circle": CIRCLE, "half-circle": HALF_CIRCLE}
DISTANCE, SQUARED, SPARSE = range(3)
REWARDS = {"distance": DISTANCE, "squared": SQUARED, "sparse": SPARSE}
LAYOUTS = {
    "u-maze": "#####/#S..#/###.#/#G..#/#####",
    "medium": "########/#..##..#/#..#...#/##...###/#..#...#/#.#..#.#/#...#..#/########",
}
GAP = 1e-6  # of a tile: how far from a wall a body that touches it stops, so that rounding never puts it inside
FAR = 16  # moves to the farthest goal, up to which there is a yardstick
EDGE = 1e6  # of the open plane, along both axes: farther than any walk here leads, but spaces need bounds
PICTURE = 11  # cells of the open plane's picture, each way


@helper
def clipped(x: float, most: float) -> float:
    """`x` within [-most, most]; what is not a number becomes `most`, so that it cannot spread through the state."""
    x = x if x < most else most
    return x if x > -most else -most


@helper
def slide(board: Array, at: float, across: float, move: float, radius: float, stride: int, side: int) -> float:
    """Where a body at `at` ends along one axis after `move` (at most one tile): in front of the first wall.

    The body is a square of half side `radius` < 1/2, so its leading edge meets at most two tiles. `stride` is the
    distance in `board` between tiles along this axis, `side` along the other one.
    """
    forward = move > 0.0
    tile = int(at + move + radius) if forward else int(at + move - radius)
    low, high = int(across - radius), int(across + radius)
    if board[tile * stride + low * side] + board[tile * stride + high * side] > 0:
        return tile - radius - GAP if forward else tile + 1 + radius + GAP
    return at + move


@helper
def draw_place(s: Any, i: int, c: Any, rng: Array, place: Array, avoid: int) -> int:
    """Draw a place with walls around it into `place` (N, 2), not in tile `avoid`; the tile it is in. Three draws."""
    j = below(rng, i, c.free.shape[0] - (1 if avoid >= 0 else 0))
    if avoid >= 0 and c.free[j] >= avoid:  # uniform over the other free tiles, which are sorted
        j += 1
    tile = c.free[j]
    room = 1.0 - 2.0 * c.radius - 4.0 * GAP
    place[i, 0] = tile % c.width + 0.5 + (unit(rng, i) - 0.5) * room
    place[i, 1] = tile // c.width + 0.5 + (unit(rng, i) - 0.5) * room
    return tile


@helper
def draw_goal(s: Any, i: int, c: Any, rng: Array) -> None:
    """Draw a goal from the distribution of this configuration."""
    if c.walls:
        draw_place(s, i, c, rng, s.goal, c.start)
        return
    x, y = 2.0 * unit(rng, i) - 1.0, 2.0 * unit(rng, i) - 1.0
    if c.goals_from != SQUARE:
        square = x * x + y * y
        while square > 1.0 or square < 1e-6:  # von Neumann's rejection: a direction without a sine
            x, y = 2.0 * unit(rng, i) - 1.0, 2.0 * unit(rng, i) - 1.0
            square = x * x + y * y
        if c.goals_from != DISK:
            length = np.sqrt(square)
            x, y = x / length, y / length
        if c.goals_from == HALF_CIRCLE and y < 0.0:
            y = -y
    s.goal[i, 0], s.goal[i, 1] = c.goal_range * x, c.goal_range * y


def parse_layout(layout: str) -> Array:
    """Characters (H, W) of a board, closed by a rim of walls where it was open. Raises ValueError with the fault."""
    rows = LAYOUTS.get(layout, layout).strip().replace("\n", "/").split("/")
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"layout rows have lengths {[len(row) for row in rows]}: make them equal")
    cells = np.array([list(row) for row in rows])
    unknown = set(cells.ravel().tolist()) - set("#.SG")
    if unknown:
        raise ValueError(f"layout has {sorted(unknown)}: use # . S G or a name from open, maze, {', '.join(LAYOUTS)}")
    if (cells == "S").sum() > 1:
        raise ValueError("layout has several starts S: give one, or none for a start that is drawn")
    edge = np.concatenate((cells[0], cells[-1], cells[:, 0], cells[:, -1]))
    if (edge != "#").any():
        cells = np.pad(cells, 1, constant_values="#")
    if max(cells.shape) > 101:
        raise ValueError(f"layout is {cells.shape[0]} x {cells.shape[1]} with its rim: at most 101 x 101")
    if (cells != "#").sum() < 2:
        raise ValueError("layout has fewer than two free tiles: start and goal need one each")
    if not connected(cells != "#"):
        raise ValueError("layout falls into parts that no way connects (corners do not count): open a wall")
    return cells


def connected(free: Array) -> bool:
    """Whether all true cells of a board (H, W) hang together by their edges."""
    seen = np.zeros(free.shape, np.bool_)
    border = [tuple(int(v) for v in np.argwhere(free)[0])]
    seen[border[0]] = True
    while border:
        y, x = border.pop()
        for ny, nx in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= ny < free.shape[0] and 0 <= nx < free.shape[1] and free[ny, nx] and not seen[ny, nx]:
                seen[ny, nx] = True
                border.append((ny, nx))
    return bool((seen == free).all())


@lru_cache(maxsize=64)
def depth_first_maze(size: int, seed: int) -> Array:
    """Characters (size, size) of a perfect maze by randomised depth-first search; rooms have odd row and column."""
    rng, cells = np.random.Generator(np.random.PCG64(seed)), np.full((size, size), "#")
    first = 2 * rng.integers((size - 1) // 2, size=2) + 1
    way = [(int(first[0]), int(first[1]))]
    cells[way[0]] = "."
    while way:
        y, x = way[-1]
        options = [(dy, dx) for dy, dx in ((0, 2), (2, 0), (0, -2), (-2, 0))
                   if 0 < y + dy < size and 0 < x + dx < size and cells[y + dy, x + dx] == "#"]  # fmt: skip
        if not options:
            way.pop()
            continue
        dy, dx = options[int(rng.integers(len(options)))]
        cells[y + dy // 2, x + dx // 2] = cells[y + dy, x + dx] = "."
        way.append((y + dy, x + dx))
    return cells


@world("navigation")
class Navigation(World):
    """Steer a point to a goal in the plane, or through a continuous maze.

    Action, float32 (2,): velocity to the right and upwards in units of `speed`, clipped to -1..1 per axis; with inertia
    it is the acceleration, in units of `acceleration`.
    Observation, float32: position (2,), with inertia velocity (2,), with visible goals the goal (2,). Reward after the
    move: minus the distance to the goal (Finn, Abbeel & Levine 2017, MAML, section 5.1, as in their code), minus its
    square, or sparse: 1 within `goal_radius`. In the open plane episodes start at the origin. With walls
    lengths are in tiles, the origin is the lower left corner, and the body, a square, slides along what it touches.
    """

    class Config(WorldConfig):
        layout: str = Field("open", description="open (the plane), maze, u-maze, medium or ASCII rows like S.#/..G")
        size: int = Field(7, ge=5, le=101, description="rows and columns of layout maze, walls included; odd")
        maze_seed: int = Field(0, ge=0, lt=2**63, description="which maze, where layout is maze")
        radius: float = Field(0.35, ge=0, le=0.499, description="half side of the body, in tiles; matters where walls are")
        goals: Literal["square", "disk", "circle", "half-circle"] = Field(
            "square", description="where goals are drawn in the open plane; a (half) circle means its line"
        )
        goal_range: float = Field(0.5, gt=0, le=1000, description="half side of the square, or radius of disk and circle")
        tasks: int = Field(0, ge=0, le=100_000, description="0: a fresh goal each episode; N: one of N goals, 1 a fixed one")
        goal_seed: int = Field(0, ge=0, lt=2**63, description="which goals, where tasks is not 0")
        goal: tuple[float, float] | None = Field(None, description="one fixed goal x,y of the open plane")
        visible: bool = Field(False, description="the observation ends with the goal's position")
        reward: Literal["distance", "squared", "sparse"] = Field("distance", description="what a step pays, see above")
        goal_radius: float = Field(0.01, gt=0, le=1000, description="distance at which the goal is reached")
        goal_ends: bool = Field(False, description="reaching the goal ends the episode")
        speed: float = Field(0.1, gt=0, le=1000, description="most that the point moves per axis and step")
        noise: float = Field(0.0, ge=0, le=1000, description="standard deviation of a Gaussian added to the move, per axis")
        inertia: bool = Field(False, description="actions accelerate: v = (1 - friction) v + action, clipped to speed")
        acceleration: float = Field(0.02, gt=0, le=1000, description="largest acceleration per axis, with inertia")
        friction: float = Field(0.1, ge=0, le=1, description="share of the velocity that a step loses, with inertia")
        time_limit: int = Field(100, ge=0, le=MOST_STEPS, description="steps until an episode is truncated; 0 means never")

        @field_validator("goal")
        @classmethod
        def _near(cls, goal: tuple[float, float] | None) -> tuple[float, float] | None:
            if goal is not None and not all(abs(v) <= EDGE for v in goal):
                raise ValueError("goal must be at most 1e6 from the origin along both axes")
            return goal

        @model_validator(mode="after")
        def _board(self) -> Any:
            if self.layout == "open":
                return self
            if self.layout == "maze":
                if self.size % 2 == 0:
                    raise ValueError(f"a maze's size must be odd: try {self.size + 1}")
                marked = False
            else:
                marked = bool((parse_layout(self.layout) == "G").any())
            if self.speed > 1:
                raise ValueError(f"speed is {self.speed:g}: with walls a step is at most 1 tile, or it would jump over one")
            if self.goal is not None:
                raise ValueError("goal is a place of the open plane: mark it with G in the layout instead")
            if marked and self.tasks:
                raise ValueError(f"tasks is {self.tasks} and the layout marks its goals with G: take one of the two")
            return self

    presets = {
        "point-navigation": Preset("2D navigation of MAML: a hidden goal in the unit square", {}),
        "point-navigation-visible": Preset("2D navigation with the goal in the observation", {"visible": True}),
        "point-sparse": Preset(
            "goals on a half circle, paid within 0.2 only, in the spirit of PEARL's sparse point robot",
            {"reward": "sparse", "goals": "half-circle", "goal_range": 1.0, "goal_radius": 0.2, "time_limit": 20},
        ),
        "point-inertia": Preset("2D navigation by acceleration, goal in the observation", {"inertia": True, "visible": True}),
        "point-maze": Preset(
            "a continuous 7 x 7 maze, start and visible goal drawn, paid on arrival",
            {"layout": "maze", "visible": True, "reward": "sparse", "goal_ends": True, "goal_radius": 0.3, "speed": 0.3,
             "time_limit": 200},
        ),
    }  # fmt: skip

    class State(NamedTuple):
        position: Array  # float64 (N, 2): to the right, upwards
        velocity: Array  # float64 (N, 2): stays 0 without inertia
        goal: Array  # float64 (N, 2)

    class Constants(NamedTuple):
        walls: bool
        inertia: bool
        noisy: bool
        visible: bool
        pay: int
        goal_ends: bool
        goals_from: int
        goal_range: float
        near: float  # goal_radius squared
        speed: float
        push: float  # velocity, or with inertia acceleration, that an action of 1 stands for
        keep: float  # 1 - friction
        noise: float
        radius: float
        width: int
        start: int  # tile of the start, -1 where it is drawn
        tasks: int
        goals: Array  # float64 (max(tasks, 1), 2)
        board: Array  # uint8 (height * width,): 1 wall; row 0 is the lowest
        free: Array  # int64: the tiles that are no walls, ascending

    static = ("walls", "inertia", "noisy", "visible", "pay", "goal_ends")

    def _cells(self) -> Array | None:
        """Characters (H, W) of the board, or None for the open plane."""
        o = self.config
        if o.layout == "open":
            return None
        return depth_first_maze(o.size, o.maze_seed) if o.layout == "maze" else parse_layout(o.layout)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        o, cells = self.config, self._cells()
        if cells is None:
            place = np.full(2, -EDGE), np.full(2, EDGE)
        else:
            place = np.zeros(2), np.array(cells.shape[::-1], np.float64)
        low, high = [place[0]], [place[1]]
        if o.inertia:
            low.append(np.full(2, -o.speed))
            high.append(np.full(2, o.speed))
        if o.visible:
            low.append(place[0])
            high.append(place[1])
        return gymnasium.spaces.Box(np.concatenate(low).astype(np.float32), np.concatenate(high).astype(np.float32))

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def allocate(self, n: int) -> State:
        return self.State(np.zeros((n, 2)), np.zeros((n, 2)), np.zeros((n, 2)))

    def constants(self) -> Constants:
        o, cells = self.config, self._cells()
        upright = np.full((1, 1), "#") if cells is None else cells[::-1]  # row 0 lowest: y grows upwards
        board = (upright == "#").astype(np.uint8).ravel()
        free, start = np.flatnonzero(board == 0), np.flatnonzero(upright == "S")
        marks = np.flatnonzero(upright == "G")
        goals = np.zeros((1, 2)) if o.goal is None else np.array([o.goal])
        tasks = o.tasks if o.goal is None else 1
        if len(marks):
            goals, tasks = np.stack((marks % upright.shape[1], marks // upright.shape[1]), 1) + 0.5, len(marks)
        c = self.Constants(
            cells is not None, o.inertia, o.noise > 0, o.visible, REWARDS[o.reward], o.goal_ends, GOALS[o.goals], o.goal_range,
            o.goal_radius**2, o.speed, o.acceleration if o.inertia else o.speed, 1.0 - o.friction, o.noise, o.radius,
            upright.shape[1], int(start[0]) if len(start) else -1, tasks, goals, board, free,
        )  # fmt: skip
        if o.tasks and o.goal is None:
            drawn, rng = self.allocate(o.tasks), fresh_streams(np.array([o.goal_seed]))
            with np.errstate(over="ignore"):
                for i in range(o.tasks):  # one stream for all, so that fewer tasks are the first ones of more
                    one = self.State(*(array[i : i + 1] for array in drawn))
                    draw_goal(one, 0, c, rng)
            c = c._replace(goals=drawn.goal)
        return c

    @rule
    def reset(s: Any, i: int, c: Any, rng: Array) -> None:
        if c.tasks > 0:
            j = below(rng, i, c.tasks)
            s.goal[i, 0], s.goal[i, 1] = c.goals[j, 0], c.goals[j, 1]
        else:
            draw_goal(s, i, c, rng)
        if c.walls:
            if c.start >= 0:
                s.position[i, 0], s.position[i, 1] = c.start % c.width + 0.5, c.start // c.width + 0.5
            else:
                draw_place(s, i, c, rng, s.position, int(s.goal[i, 1]) * c.width + int(s.goal[i, 0]))
        else:
            s.position[i, 0], s.position[i, 1] = 0.0, 0.0
        s.velocity[i, 0], s.velocity[i, 1] = 0.0, 0.0

    @rule
    def step(s: Any, i: int, action: Array, c: Any, rng: Array, reward: Array) -> bool:
        vx, vy = c.push * clipped(float(action[0, 0]), 1.0), c.push * clipped(float(action[0, 1]), 1.0)
        if c.inertia:
            vx = clipped(s.velocity[i, 0] * c.keep + vx, c.speed)
            vy = clipped(s.velocity[i, 1] * c.keep + vy, c.speed)
        mx, my = vx, vy
        if c.noisy:
            mx += c.noise * normal(rng, i)
            my += c.noise * normal(rng, i)
        x, y = s.position[i, 0], s.position[i, 1]
        if c.walls:
            mx, my = clipped(mx, 1.0), clipped(my, 1.0)
            nx = slide(c.board, x, y, mx, c.radius, 1, c.width)
            ny = slide(c.board, y, nx, my, c.radius, c.width, 1)
            if c.inertia:  # a wall takes the velocity against it
                vx = vx if nx == x + mx else 0.0
                vy = vy if ny == y + my else 0.0
            x, y = nx, ny
        else:
            x, y = clipped(x + mx, EDGE), clipped(y + my, EDGE)
        if c.inertia:
            s.velocity[i, 0], s.velocity[i, 1] = vx, vy
        s.position[i, 0], s.position[i, 1] = x, y
        dx, dy = s.goal[i, 0] - x, s.goal[i, 1] - y
        square = dx * dx + dy * dy
        if c.pay == SPARSE:
            reward[0] = 1.0 if square <= c.near else 0.0
        elif c.pay == SQUARED:
            reward[0] = -square
        else:
            reward[0] = -np.sqrt(square)
        return c.goal_ends and square <= c.near

    @rule
    def observe(s: Any, i: int, k: int, c: Any, out: Array) -> None:
        out[0], out[1] = s.position[i, 0], s.position[i, 1]
        if c.inertia:
            out[2], out[3] = s.velocity[i, 0], s.velocity[i, 1]
        if c.visible:
            j = 4 if c.inertia else 2
            out[j], out[j + 1] = s.goal[i, 0], s.goal[i, 1]

    @property
    def solver(self) -> str:
        o = self.config
        plain = o.layout == "open" and not o.inertia and not o.noise and not o.goal_ends and o.reward != "sparse"
        near = (max(map(abs, o.goal)) if o.goal else o.goal_range) <= FAR * o.speed
        return "closed form" if plain and near and 0 < o.time_limit <= 100_000 else ""

    def yardstick(self, s: Any) -> Yardstick | None:
        """In the open plane without inertia, noise or an early end, for rewards by distance.

        The box that t steps can reach contains the place nearest to the goal at `speed` towards it along each axis, so
        going there at once is best at every t together: residual max(|z| - t speed, 0) per axis. Random: `walk_cost`.
        """
        if not self.solver:
            return None
        o = self.config
        z = np.abs(s.goal - s.position)  # (N, 2)
        steps = min(o.time_limit, int(np.ceil(z.max() / o.speed)))
        best = np.zeros(len(z))
        for t in range(1, steps + 1):
            rest = (np.maximum(z - t * o.speed, 0.0) ** 2).sum(1)
            best -= rest if o.reward == "squared" else np.sqrt(rest)
        if o.reward == "squared":  # E|z + S_t|^2 = |z|^2 + t 2 speed^2 / 3
            lazy = -(o.time_limit * (z**2).sum(1) + o.speed**2 / 3 * o.time_limit * (o.time_limit + 1))
        else:
            lazy = -walk_cost(z, o.time_limit, o.speed)
        return Yardstick(lazy, best, "optimum of an agent that knows the goal")

    def check_state(self, s: Any) -> str | None:
        o, cells = self.config, self._cells()
        if outside(s.goal, -EDGE, EDGE) or outside(s.velocity, -o.speed, o.speed):
            return "goal or velocity is out of bounds"
        if cells is None:
            return "position is beyond the edge" if outside(s.position, -EDGE, EDGE) else None
        height, width = cells.shape
        for places, r in ((s.goal, 0.0), (s.position, o.radius)):
            if outside(places[:, 0], r, width - r - GAP / 2) or outside(places[:, 1], r, height - r - GAP / 2):
                return "position or goal is off the board"
            for sign_x in (-r, r):
                for sign_y in (-r, r):
                    row, column = (places[:, 1] + sign_y).astype(int), (places[:, 0] + sign_x).astype(int)
                    if (cells[::-1][row, column] == "#").any():
                        return "position or goal is inside a wall"
        return None

    def scene(self, s: Any, i: int) -> Scene:
        cells = self._cells()
        (x, y), (gx, gy) = s.position[i].tolist(), s.goal[i].tolist()
        caption = f"at {x:.2f}, {y:.2f}; {float(np.hypot(gx - x, gy - y)):.2f} from the goal"
        if cells is not None:
            height = cells.shape[0]
            board = np.where(cells == "#", "#", ".")
            goal, agent = Entity(height - gy - 0.5, gx - 0.5, "goal"), Entity(height - y - 0.5, x - 0.5, "agent")
            return Scene(board, (goal, agent), caption=caption)
        o, middle = self.config, PICTURE // 2
        half = max(o.goal_range, abs(o.goal[0]), abs(o.goal[1])) if o.goal else o.goal_range
        scale = (middle - 0.5) / half  # cells per unit of length: goals never touch the picture's edge
        board = np.full((PICTURE, PICTURE), ".")
        board[middle, middle] = "S"

        def entity(x: float, y: float, kind: str) -> Entity:
            """What is beyond the picture stands at its edge."""
            row, column = (min(max(v, 0.0), PICTURE - 1.0) for v in (middle - y * scale, middle + x * scale))
            return Entity(row, column, kind)

        return Scene(board, (entity(gx, gy, "goal"), entity(x, y, "agent")), caption=caption)


# --- what random actions cost


def mean_distance(z: Array, half: float) -> Array:
    """E|z + a| for a uniform in [-half, half]^2, float64 (N,), from z (N, 2): the integral of r over a rectangle."""

    def corner(x: Array, y: Array) -> Array:
        """Integral of sqrt(u^2 + v^2) over [0, x] x [0, y], odd in both: x y r / 3 + (x^3 asinh(y/|x|) + ...) / 6."""
        a, b = np.maximum(np.abs(x), 1e-300), np.maximum(np.abs(y), 1e-300)
        area = a * b * np.hypot(a, b) / 3 + (a**3 * np.arcsinh(b / a) + b**3 * np.arcsinh(a / b)) / 6
        return np.sign(x) * np.sign(y) * area

    (x0, y0), (x1, y1) = (z - half).T, (z + half).T
    total: Array = corner(x1, y1) - corner(x0, y1) - corner(x1, y0) + corner(x0, y0)
    return total / (2 * half) ** 2


def walk_cost(z: Array, steps: int, half: float) -> Array:
    """Sum over t = 1..steps of E|z + S_t|, float64 (N,), where S_t adds t uniform moves from [-half, half]^2; z (N, 2).

    In the plane |x| = 1/(2 pi) int (1 - cos w.x) |w|^-3 dw, so E|z + S_t| is that integral with cos(w.z) phi(w)^t in
    place of the cosine, phi(w) = sinc(half w_x) sinc(half w_y); the sum over t is geometric. The first step is taken in
    closed form, the others by Gauss-Legendre quadrature in polar coordinates on a grid of z, between which the smooth
    result is interpolated. Good to 1e-6 of the result, for |z| up to FAR * half along both axes.
    """
    z = np.abs(z)
    cost = mean_distance(z, half)
    if steps < 2:
        return cost
    grid, table = _walk_table(steps, max(1, int(np.ceil(float(z.max()) / half))))
    from scipy.interpolate import RectBivariateSpline

    spline = RectBivariateSpline(grid, grid, table, kx=5, ky=5)
    return cost + half * spline.ev(z[:, 0] / half, z[:, 1] / half)


@lru_cache(maxsize=16)
def _walk_table(steps: int, far: int, fine: int = 1) -> tuple[Array, Array]:
    """A grid (G,) over [0, far] and the sum over t = 2..steps of E|z + S_t| on its square (G, G), for half = 1."""
    nodes, weights = np.polynomial.legendre.leggauss(16 * fine)
    most = 60.0 * fine  # phi^2 / |w|^2 has faded beyond
    cuts = [0.0, *(most * 2.0**-k for k in range(24, 6, -1))]  # finer towards 0, where phi^t is a narrow peak
    cuts += np.linspace(cuts[-1], most, 2 + int(most * far / 10))[1:].tolist()  # short against a period of cos(w z)
    width = np.diff(cuts)[:, None] / 2
    rho = (np.array(cuts)[:-1, None] + width * (1 + nodes)).ravel()
    radial = (width * weights).ravel() / rho**2 / (2 * np.pi)
    angles, shares = np.polynomial.legendre.leggauss(160 * fine)
    grid = np.linspace(0.0, far, 6 * far + 1)
    table = np.full((len(grid), len(grid)), (steps - 1) / most)  # of |w|^-2 beyond `most`, all around
    for angle, share in zip((angles + 1) * np.pi / 4, shares * np.pi, strict=True):  # a quarter turn, four times
        wx, wy = rho * np.cos(angle), rho * np.sin(angle)
        phi = np.sinc(wx / np.pi) * np.sinc(wy / np.pi)
        a, b = (np.where(w < 0.1, w**2 / 6 - w**4 / 120 + w**6 / 5040, 1 - np.sinc(w / np.pi)) for w in (wx, wy))
        rest = a + b - a * b  # 1 - phi, with all its digits
        small = np.minimum(rest, 0.5)
        ended = np.where(rest < 0.5, -np.expm1((steps - 1) * np.log1p(-small)), 1 - phi ** (steps - 1))  # 1 - phi^(steps - 1)
        powers = phi**2 * ended / rest  # phi^2 + ... + phi^steps
        weight = radial * share
        # steps - 1 - powers cos cos', as (steps - 1 - powers) + powers ((1 - cos) + cos (1 - cos')): no digits lost near 0
        lost_x, lost_y = (2 * np.sin(np.outer(grid, w / 2)) ** 2 for w in (wx, wy))
        by = weight * powers
        table += weight @ (steps - 1 - powers) + (lost_x @ by)[:, None] + ((1 - lost_x) * by) @ lost_y.T
    return grid, table
