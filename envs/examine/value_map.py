"""Pictures of a solved world: the value function as a heat map over the cells, the best action as an arrow in each.

Where a world's states are places on its board (`map_of`), they are drawn on it, as text or PNG; other states are
listed (`rows_of`). The colour map is cividis (Nunez, Anderton & Renslow 2018), which colour-blind eyes read as others
do. matplotlib is imported only when a picture is saved.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...store.arrays import Array
from ..solvers.mdp import Solution
from ..world import Model, World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROBES = 6  # pairs of states that tell whether a field of the state is a place on the board
MOST_PLACES = 101 * 101  # cells that are drawn
LISTED = 20  # states of a table in text
BARS = 40  # states of a bar chart
NUMBERS_TO = 12  # cells a side up to which values are written into a picture
SUFFIXES = (".png", ".svg", ".pdf")
WALL, HATCH, PAPER, INK, RED = "#D9D5CC", "#A8A39A", "#FFFFFF", "#222222", "#D55E00"
# As on a number pad: mark of a direction (rows down, columns right); the four straight ones are arrows.
MARKS = {(-1, 0): "^", (1, 0): "v", (0, -1): "<", (0, 1): ">", (-1, -1): "7", (-1, 1): "9", (1, -1): "1", (1, 1): "3"}


class Map(NamedTuple):
    """What is known of each cell of a board of H rows and W columns."""

    cells: Array  # (H, W) single characters of the scene: '#' wall, '.' floor, 'G' goal, ...
    value: Array  # float64 (H, W): optimal return from there; NaN where the agent is never in this layer of states
    move: Array  # int64 (H, W, 2): where the best action leads, rows and columns in -1..1
    mark: Array  # (H, W) characters: the best action, in text
    start: tuple[int, int]


class StateTable(NamedTuple):
    """The first states of a model that is no board."""

    names: tuple[str, ...]  # fields of the state
    states: tuple[tuple[str, ...], ...]  # their contents
    value: Array  # float64 (R,)
    action: Array | None  # int64 (R,); None: no single one is best
    total: int  # states there are
    start: int


def rows_of(model: Model, solution: Solution) -> StateTable:
    """The first `BARS` states, the start first; a policy of floats is mixed and not shown."""
    total = len(model.next_state)
    shown = [model.start, *(s for s in range(min(total, BARS + 1)) if s != model.start)][:BARS]
    states = tuple(
        tuple(" ".join(f"{v:g}" for v in np.ravel(field[s])[:8].tolist()) for field in model.fields.values()) for s in shown
    )
    action = solution.policy[shown] if solution.policy.dtype.kind in "iu" else None
    return StateTable(tuple(model.fields), states, solution.value[shown], action, total, model.start)


# --- where states are on a board


def map_of(world: World, state: Any, model: Model, solution: Solution, q: Array) -> Map | None:
    """The states that differ from the start only in where the agent stands, on the board that `world.scene` shows of copy 0.

    `q`: float (A, S), the action values that `solution` is greedy for. None: the states are no places on a board.
    """
    scene = world.scene(state, 0)
    if scene is None or np.ndim(scene.cells) != 2 or min(np.shape(scene.cells)) < 1:
        return None
    layer = _places(world, state, model)
    if layer is None:
        return None
    states, rows, columns = layer
    cells = np.array(scene.cells)
    height, width = cells.shape
    if rows.min() < 0 or columns.min() < 0 or rows.max() >= height or columns.max() >= width:
        return None
    at = np.full((len(model.next_state), 2), 0)
    known = np.zeros(len(at), np.bool_)
    at[states], known[states] = np.stack((rows, columns), 1), True
    moves, marks = _moves(model, states, at, known, solution.policy)
    for e in scene.entities:
        if e.kind == "candy" and cells[int(e.row), int(e.column)] in ".S":
            cells[int(e.row), int(e.column)] = "*"
    value, move = np.full((height, width), np.nan), np.zeros((height, width, 2), np.int64)
    mark = np.where(cells == "#", "#", " ")
    # To terminate in a cell is not to be there with an action to choose.
    on = (model.probability > 0) & ~model.terminated
    entered, reached = np.zeros(len(at), np.bool_), np.zeros(len(at), np.bool_)
    entered[model.next_state[on & (model.next_state != np.arange(len(at))[:, None, None])]] = True
    front = np.array([model.start])
    while len(front):
        reached[front] = True
        front = np.unique(model.next_state[front][on[front]])
        front = front[~reached[front]]
    hopeless = (np.ptp(q, axis=0) < 1e-12) & (np.abs(solution.value) < 1e-12)  # all the same: nothing to be got
    for s, row, column, step, symbol in zip(states, rows, columns, moves, marks, strict=True):
        cell = str(cells[row, column])
        if not (reached[s] or entered[s] and cell in ".#S"):
            mark[row, column] = " " if cell in ".#S" else cell
            continue
        value[row, column] = solution.value[s]
        mark[row, column] = "." if hopeless[s] else symbol
        move[row, column] = 0 if hopeless[s] else step
    return Map(cells, value, move, mark, (int(at[model.start, 0]), int(at[model.start, 1])))


def _places(world: World, state: Any, model: Model) -> tuple[Array, Array, Array] | None:
    """States, rows and columns of the start's layer: all that is not the agent's place is as at the start."""
    one = type(state)(*(np.array(array[:1]) for array in state))

    def place(s: int) -> tuple[int, int] | None:
        for name, field in model.fields.items():
            array = getattr(one, name)
            array[0] = field[s].reshape(array.shape[1:])
        scene = world.scene(one, 0)
        for e in () if scene is None else scene.entities:
            if e.kind == "agent" and e.index == 0:
                whole = float(e.row).is_integer() and float(e.column).is_integer()
                return (int(e.row), int(e.column)) if whole else None
        return None

    total = len(model.next_state)
    packed = {
        name: np.ascontiguousarray(field).reshape(total, -1).view(np.uint8).reshape(total, -1)
        for name, field in model.fields.items()
    }
    if total < 2 or place(model.start) is None:
        return None
    layer = np.ones(total, np.bool_)
    for name in packed:
        others = [other for key, other in packed.items() if key != name]
        group = np.zeros(total, np.int64) if not others else _groups(np.concatenate(others, axis=1))
        order = np.argsort(group, kind="stable")
        pairs = np.flatnonzero(group[order][1:] == group[order][:-1])
        some = (
            pairs[np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), PROBES)).astype(np.int64))] if len(pairs) else pairs
        )
        if not any(place(int(order[k])) != place(int(order[k + 1])) for k in some):
            layer &= (packed[name] == packed[name][model.start]).all(1)
    states = np.flatnonzero(layer)
    if not 2 <= len(states) <= MOST_PLACES:
        return None
    found = [place(int(s)) for s in states]
    if None in found or len(set(found)) < len(found):
        return None
    rows, columns = np.array(found).T
    return states, rows, columns


def _groups(packed: Array) -> Array:
    """A number for each row (S, bytes), equal for equal rows."""
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
    return np.asarray(np.unique(keys, return_inverse=True)[1])


def _moves(model: Model, states: Array, at: Array, known: Array, policy: Array) -> tuple[Array, list[str]]:
    """Direction (n, 2) in -1..1 and mark of the best action in each of `states`.

    Where chance interferes, an action's arrow is where it leads on average over all cells: slip and walls cancel out. Where
    nothing does, or actions mean different things in different cells, it is where they lead from that cell.
    """
    to = model.next_state[states]  # (n, A, K)
    weight = model.probability[states] * known[to]
    step = at[to] - at[states][:, None, None]  # (n, A, K, 2)
    step = step / np.maximum(np.abs(step).max(-1, keepdims=True), 1)  # a slide or a jump is one step
    mean = (weight[..., None] * step).sum(2)  # (n, A, 2)
    oblique = bool(((np.abs(step).min(-1) == 1) & (weight > 0)).any())
    general = [_direction(v, oblique) for v in mean.mean(0)]
    moving = [d for d in general if d != (0, 0)]
    taken = np.sign(np.rint(step)) * (weight > 0)[..., None]  # (n, A, K, 2)
    means_it = all((taken[:, a] == d).all(-1).any() for a, d in enumerate(general) if d != (0, 0))
    certain = bool(model.probability[states].max(2).min() > 1 - 1e-9)
    by_cell = certain or not means_it or len(set(moving)) < len(moving)
    seen = weight.sum(2) > 0  # (n, A): the outcome stays in this layer, so that its place is known
    here = (to == states[:, None, None]) & ~model.terminated[states]
    still = (model.probability[states] * here).sum(2)  # (n, A)
    stays = still.mean(0) > 0.5  # in most cells: where there is something to pick up, to stay changes the state
    moves, marks = np.zeros((len(states), 2), np.int64), []
    for n, a in enumerate(policy[states].tolist()):
        alone = by_cell and bool(seen[n, a])
        direction = _direction(mean[n, a], oblique) if alone else general[a]
        moves[n] = direction
        marks.append(MARKS.get(direction, "o" if (still[n, a] > 0.5 if alone else stays[a]) else chr(ord("a") + a % 26)))
    return moves, marks


def _direction(v: Array, oblique: bool) -> tuple[int, int]:
    dy, dx = float(v[0]), float(v[1])
    if max(abs(dy), abs(dx)) < 1e-6:
        return 0, 0
    sign = int(np.sign(dy)), int(np.sign(dx))
    if oblique and min(abs(dy), abs(dx)) > 0.41 * max(abs(dy), abs(dx)):
        return sign
    return (sign[0], 0) if abs(dy) > abs(dx) else (0, sign[1])


# --- text


def text(picture: Map | StateTable, label: str = "optimal return") -> str:
    """The picture in plain characters; `label` says what the values of a map are."""
    if isinstance(picture, StateTable):
        return _table(picture)
    used = set(picture.mark.ravel().tolist()) - set(picture.cells[np.isnan(picture.value)].ravel().tolist())
    key = "o: stay; "
    key += "7 9 1 3: slantwise, as on a number pad; " if used & set("7913") else ""
    key += "a, b, c, ...: action 0, 1, 2, ...; " if used & set("abcdefghijklmnpqrstuwxyz") else ""
    start = f"start: row {picture.start[0]}, column {picture.start[1]}; {key}{label} from each cell:"
    numbers = np.where(np.isnan(picture.value), " " * 9, np.vectorize(lambda v: f"{v:9.3g}", otypes=["<U12"])(picture.value))
    return "\n".join([" ".join(row) for row in picture.mark] + [start] + ["".join(row).rstrip() for row in numbers])


def _table(rows: StateTable) -> str:
    shown = range(min(len(rows.states), LISTED))
    header = ["", *rows.names, "value", *(["action"] if rows.action is not None else [])]
    lines = [header] + [
        ["start" if k == 0 else "", *rows.states[k], f"{rows.value[k]:.4g}", *_action(rows, k, "")] for k in shown
    ]
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]
    out = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*out, *([f"... {rows.total:,} states in all"] if rows.total > len(shown) else [])])


def _action(rows: StateTable, k: int, word: str) -> list[str]:
    return [] if rows.action is None else [f"{word}{int(rows.action[k])}"]


# --- pictures


def require_path(path: Path | str) -> Path:
    """`path` as a Path if `save` can write such a picture there; else ValueError with the way out."""
    out = Path(path)
    if out.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot draw {out.name}: give a name that ends in {', '.join(SUFFIXES)}")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"folder {out.parent} does not exist: make it, or give another")
    return out


def save(path: Path | str, picture: Map | StateTable, title: str = "", label: str = "optimal return") -> None:
    """Draw `picture` into a PNG, SVG or PDF. ValueError: another suffix, or no such folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = require_path(path)
    if isinstance(picture, Map):
        height, width = picture.value.shape
        cell = min(0.8, 9.0 / max(height, width))
        figure = Figure(figsize=(max(4.6, cell * width + 1.9), max(1.6, cell * height + 1.35)), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _draw_map(axes, picture, label, min(cell, 9.0 / width))
    else:
        figure = Figure(figsize=(7, max(2.0, 0.9 + 0.22 * len(picture.states))), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _draw_rows(axes, picture, label)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    try:
        figure.savefig(out, facecolor="white", metadata={"Software": None} if out.suffix.lower() == ".png" else None)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}") from None


def _draw_map(axes: Axes, picture: Map, label: str, inch: float) -> None:
    """One square of `inch` a cell: colour the value, an arrow the best action, a ring the start, letters the tiles."""
    from matplotlib import colormaps
    from matplotlib.collections import PatchCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    height, width = picture.value.shape
    known = ~np.isnan(picture.value)
    low = float(picture.value[known].min()) if known.any() else 0.0
    high = float(picture.value[known].max()) if known.any() else 1.0
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    colors = colormaps["cividis"].with_extremes(bad=PAPER)
    shown = axes.imshow(np.ma.masked_invalid(picture.value), cmap=colors, vmin=low, vmax=high)
    wall = np.argwhere((picture.cells == "#") & ~known)
    squares = [Rectangle((column - 0.5, row - 0.5), 1, 1) for row, column in wall.tolist()]
    hatched: dict[str, Any] = {"facecolor": WALL, "edgecolor": HATCH, "linewidth": 0, "hatch": "/////" if inch < 0.5 else "///"}
    axes.add_collection(PatchCollection(squares, **hatched))
    points = inch * 72  # of a cell's side
    numbers = max(height, width) <= NUMBERS_TO
    lift = 0.14 if numbers else 0.0
    bright = np.nan_to_num((picture.value - low) / (high - low)) > 0.55
    for color, side in ((INK, bright), ("white", ~bright)):
        here = np.argwhere(known & side & picture.move.any(2))
        if len(here):
            step = picture.move[here[:, 0], here[:, 1]]
            step = 0.56 * step / np.linalg.norm(step, axis=1, keepdims=True)
            tail = here - np.array((lift, 0)) - step / 2  # rows, columns
            sizes: dict[str, Any] = {
                "width": 0.07,
                "headwidth": 4.4,
                "headlength": 4,
                "headaxislength": 3.6,
            }  # in cells, in widths
            units: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "xy"}
            axes.quiver(tail[:, 1], tail[:, 0], step[:, 1], step[:, 0], color=color, **units, **sizes)
        for mark, share in (("o", 0.26), (".", 0.08)):
            here = np.argwhere(known & side & ~picture.move.any(2) & (picture.mark == mark))
            axes.plot(here[:, 1], here[:, 0] - lift, ".", color=color, markersize=2 * share * points, markeredgewidth=0)
    tiles = []
    for row, column in np.ndindex(height, width):
        cell, mark = str(picture.cells[row, column]), str(picture.mark[row, column])
        color = INK if bright[row, column] or not known[row, column] else "white"
        if known[row, column] and mark not in "o." and not picture.move[row, column].any():
            axes.text(column, row - lift, mark, ha="center", va="center", color=color, fontsize=0.34 * points)
        if numbers and known[row, column]:
            value = f"{picture.value[row, column]:.3g}"
            axes.text(column, row + 0.34, value, ha="center", va="center", color=color, fontsize=min(0.17 * points, 9))
        if cell not in ".# S":
            tiles.append(cell)
            middle = not known[row, column]
            where = (column, row) if middle else (column - 0.36, row - 0.34)
            size = 0.42 * points if middle else max(0.2 * points, 3.5)
            axes.text(*where, cell, ha="center", va="center", color=color, fontsize=size, fontweight="bold")
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": RED}
    size = (0.66 if numbers else 0.86) * points
    place = [picture.start[1]], [picture.start[0] - lift]
    axes.plot(*place, **ring, markersize=size, markeredgewidth=max(0.045 * points, 1), ls="none")
    axes.set_xticks(_ticks(width))
    axes.set_yticks(_ticks(height))
    axes.tick_params(length=0, labelsize=7)
    axes.set_xticks(np.arange(-0.5, width), minor=True)
    axes.set_yticks(np.arange(-0.5, height), minor=True)
    axes.grid(which="minor", color="white", linewidth=min(0.02 * points, 0.8))
    axes.tick_params(which="minor", length=0)
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    dark: dict[str, Any] = {"ls": "none", "color": INK, "markersize": 7}
    key: list[Any] = [Line2D([], [], **ring, markersize=8, ls="none", label="start")]
    marks = set(picture.mark[known].tolist())
    if picture.move.any():
        key.append(Line2D([], [], marker="$\u2192$", label="best action", **dark))
    if "o" in marks:
        key.append(Line2D([], [], marker="$\u25cf$", label="stay", **dark))
    if "." in marks:
        key.append(Line2D([], [], marker="$\u00b7$", label="nothing to be got", **dark))
    for a in sorted(m for m in marks if m.isalpha() and m not in "ov"):
        key.append(Line2D([], [], marker=f"${a}$", label=f"action {ord(a) - ord('a')}", **dark))
    if len(wall):
        key.append(Patch(**hatched, label="wall"))
    names = {"G": "goal", "H": "hole", "*": "candy"}
    key += [Line2D([], [], marker=f"${c}$", label=names[c], **dark) for c in sorted(set(tiles)) if c in names]
    axes.figure.legend(handles=key, loc="outside lower center", ncols=min(len(key), 4), fontsize=8, frameon=False)


def _ticks(size: int) -> Array:
    """At most 12 round positions."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if size <= 12 * s)
    return np.arange(0, size, step)


def _draw_rows(axes: Axes, rows: StateTable, label: str) -> None:
    """A bar for each state, labelled with its fields; the start's has another colour."""
    n = len(rows.states)
    names = [", ".join(f"{k} {v}" for k, v in zip(rows.names, state, strict=True)) for state in rows.states]
    names = [name if len(name) <= 48 else f"{name[:47]}…" for name in names]
    axes.barh(np.arange(n), rows.value, color=[RED] + ["#0072B2"] * (n - 1))
    for k in range(n):
        edge = " " if rows.value[k] >= 0 else "  "
        axes.text(
            rows.value[k], k, " ".join([f"{edge}{rows.value[k]:.3g}", *_action(rows, k, "action ")]), va="center", fontsize=6
        )
    axes.set_yticks(np.arange(n), names, fontsize=6)
    axes.invert_yaxis()
    axes.margins(x=0.22, y=0.01)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel(f"{label} (orange: the start; {n} of {rows.total:,} states)", fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
