"""Searching for a hidden goal: what an agent can get in its first episode, before it knows where the goal stands.

Until it steps on the goal, such an agent learns nothing but where the goal is not; so its best plan is a fixed path, to
be left on the goal. The best path is a travelling-salesman-like problem: beam search finds one, a relaxation bounds all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...store.arrays import Array

MOST_CELLS = 4096  # distances between all cells are kept
PENALTY = np.array([9.0, 3.0, 1.0, 0.3, 0.0])  # of unsearched cells with 0, 1, 2, 3, more unsearched neighbours
BEAMS = (16, 128, 1024)  # widths tried in turn, until value and bound agree


class SearchValue(NamedTuple):
    """The best expected return found, a bound that no agent exceeds (equal: the value is exact), and a path that earns it."""

    value: float
    bound: float
    path: Array  # int64 (horizon + 1,): the cell after 0, 1, ... steps, if the goal is never met

    @property
    def exact(self) -> bool:
        return bool(self.bound - self.value <= 1e-9 * (1 + abs(self.bound)))


def best_search(
    neighbours: Array,
    start: int,
    prior: Array,
    horizon: int,
    hit: float = 1.0,
    miss: float = 0.0,
    beam: int | None = None,
) -> SearchValue:
    """Best expected return of an agent that looks for a goal it cannot see, and stays on it once found.

    `neighbours`: whole numbers (S, A), where each action leads, for certain; `prior`: float (S,), chance that the goal is
    at each cell, sums to 1; every step that ends on the goal pays `hit`, every other `miss`. A path that reaches goal g
    first after t(g) of T steps is worth T miss + (hit - miss) sum_g prior(g) (T - t(g) + 1), so that early and likely
    cells count; the start counts from the first step that ends there. `beam` keeps so many paths per step; None tries
    16, 128, 1,024 until value and bound agree. Equal plans (same cell, same set of searched cells) are kept once. The bound
    is the larger of the value and of the optimistic bounds (a new cell with the most prior at each step, none before it can
    be reached) of all plans that were ever dropped. ValueError: a goal could not be stayed on, or the input is no such problem.
    """
    next_cell, prior = _checked(neighbours, start, prior, horizon, hit, miss)
    best: SearchValue | None = None
    for width in BEAMS if beam is None else (beam,):
        if width < 1:
            raise ValueError(f"beam is {width}: keep at least 1 path")
        gained, bound, path = _Search(next_cell, start, prior, horizon).run(width)
        found = SearchValue(horizon * miss + (hit - miss) * gained, horizon * miss + (hit - miss) * bound, path)
        if best is None:
            best = found
        else:
            better = found if found.value > best.value else best
            best = better._replace(bound=max(better.value, min(best.bound, found.bound)))
        if best.exact:
            break
    assert best is not None
    return best


def _checked(neighbours: Array, start: int, prior: Array, horizon: int, hit: float, miss: float) -> tuple[Array, Array]:
    next_cell, weight = np.asarray(neighbours), np.asarray(prior, np.float64)
    if next_cell.ndim != 2 or 0 in next_cell.shape or next_cell.dtype.kind not in "iu":
        raise ValueError(f"neighbours is {next_cell.dtype} {next_cell.shape}: it must be whole numbers (cells, actions)")
    cells = len(next_cell)
    if cells > MOST_CELLS:
        raise ValueError(f"neighbours has {cells:,} cells: search takes at most {MOST_CELLS:,}")
    if next_cell.min() < 0 or next_cell.max() >= cells:
        raise ValueError(f"neighbours leads outside 0..{cells - 1}")
    if not 0 <= start < cells:
        raise ValueError(f"start is {start}: it must be in 0..{cells - 1}")
    if weight.shape != (cells,) or not (weight >= 0).all() or abs(float(weight.sum()) - 1) > 1e-9:
        raise ValueError(f"prior must be {cells} probabilities that sum to 1")
    if horizon < 0:
        raise ValueError(f"horizon is {horizon}: it must be at least 0 steps")
    if not hit >= miss:
        raise ValueError(f"hit is {hit:g}, miss {miss:g}: a goal that is worth less than its surroundings is not looked for")
    homeless = (weight > 0) & (next_cell != np.arange(cells)[:, None]).all(1)
    if homeless.any():
        raise ValueError(f"a goal at cell {int(homeless.argmax())} cannot be stayed on: give neighbours an action that stays")
    return next_cell.astype(np.int64), weight


class _Search:
    """Beam search over paths; per path: its cell, the cells searched, prior-weighted steps gained so far."""

    def __init__(self, next_cell: Array, start: int, prior: Array, horizon: int) -> None:
        from scipy.sparse import csgraph, csr_array

        self.next, self.start, self.prior, self.horizon = next_cell, start, prior, horizon
        cells, actions = next_cell.shape
        columns, ends_at = next_cell.flatten(), np.arange(0, cells * actions + 1, actions)
        edges = csr_array((np.ones(cells * actions), columns, ends_at), shape=(cells, cells))  # it sorts columns in place
        edges.sum_duplicates()
        steps = csgraph.shortest_path(edges, unweighted=True)
        np.fill_diagonal(steps, 1)  # to search the cell one stands on takes a step that ends there
        self.targets = np.flatnonzero(prior > 0)
        far = horizon + 1
        away = np.minimum(steps[:, self.targets], far).astype(np.int64)  # (S, G)
        self.order = np.argsort(away, axis=1, kind="stable").astype(np.int32)  # targets by distance
        ranked = np.take_along_axis(away, self.order, 1)
        # How many targets are within d = 1 .. horizon steps of each cell: (S, horizon).
        self.within = np.stack([np.searchsorted(row, np.arange(1, far), side="right") for row in ranked]).astype(np.int32)
        self.weight = prior[self.targets]
        self.slot = np.full(cells, -1)
        self.slot[self.targets] = np.arange(len(self.targets))
        self.uniform = bool(np.ptp(self.weight) < 1e-15)
        self.key = np.random.default_rng(0).integers(1, 2**63, len(self.targets) + 1, dtype=np.uint64)
        self.key[-1] = 0  # cells without prior
        self.room = self._room()

    def _room(self) -> Array:
        """Distinct other cells next to each cell, as (S, A) with -1 for repeats and itself: who is shut in by a path."""
        cells, actions = self.next.shape
        near = np.sort(self.next, axis=1)
        repeated = np.zeros(near.shape, np.bool_)
        repeated[:, 1:] = near[:, 1:] == near[:, :-1]
        return np.where(repeated | (near == np.arange(cells)[:, None]), -1, near)

    def optimistic(self, cell: Array, unseen: Array, left: int) -> Array:
        """Upper bound of what paths (M,) gain in `left` more steps; `unseen`: bool (M, G).

        After d steps at most the prior within distance d, and at most that of the d likeliest cells, is searched: the
        sum over d of the smaller one bounds sum_g prior(g) (left - t(g) + 1).
        """
        if left == 0:
            return np.zeros(len(cell))
        weight = unseen * self.weight
        reach = np.cumsum(np.take_along_axis(weight, self.order[cell], 1), 1)
        reach = np.concatenate((np.zeros((len(cell), 1)), reach), 1)
        near = np.take_along_axis(reach, self.within[cell, :left], 1)
        if self.uniform:
            count = np.minimum(unseen.sum(1)[:, None], np.arange(1, left + 1))
            top = count * self.weight[0]
        else:
            top = np.cumsum(-np.sort(-weight, axis=1)[:, :left], 1)
            top = np.pad(top, ((0, 0), (0, left - top.shape[1])), mode="edge")
        total: Array = np.minimum(near, top).sum(1)
        return total

    def run(self, width: int) -> tuple[float, float, Array]:
        """Gain of the best path, a bound of all paths' gains, and the path's cells (horizon + 1,)."""
        cell = np.array([self.start])
        unseen = np.ones((1, len(self.targets)), np.bool_)
        gain: Array = np.zeros(1)
        code: Array = np.zeros(1, np.uint64)
        beside = np.where(self.room >= 0, self.slot[self.room], -1)  # (S, A) slots of a cell's neighbours
        open_ = (beside[self.targets] >= 0).sum(1)[None]  # (M, G): unsearched neighbours of each target
        dropped = -np.inf
        parents: list[Array] = []
        cells: list[Array] = [cell]
        for t in range(1, self.horizon + 1):
            parent = np.repeat(np.arange(len(cell)), self.next.shape[1])
            to = self.next[cell].ravel()
            slot = self.slot[to]
            fresh = (slot >= 0) & unseen[parent, slot]
            got = gain[parent] + np.where(fresh, self.prior[to], 0.0) * (self.horizon - t + 1)
            code_to = np.where(fresh, code[parent] ^ self.key[slot], code[parent])
            # The same cell with the same cells searched: what comes after is the same, so the higher gain is enough.
            order = np.lexsort((-got, to, code_to))
            first = np.ones(len(order), np.bool_)
            first[1:] = (code_to[order][1:] != code_to[order][:-1]) | (to[order][1:] != to[order][:-1])
            kept = order[first]
            parent, to, slot, fresh, got, code_to = (a[kept] for a in (parent, to, slot, fresh, got, code_to))
            rest = unseen[parent]
            rest[np.flatnonzero(fresh), slot[fresh]] = False
            # Among paths that promise as much, those first that leave few unsearched cells nearly shut in: such a cell must
            # be the next or the last one, or costs steps over known ground (after Warnsdorff's rule for knight's tours).
            doors = open_[parent].astype(np.int8)
            for k in range(beside.shape[1]):
                there = beside[to, k]
                one = np.flatnonzero(fresh & (there >= 0))
                doors[one, there[one]] -= 1
            shut = PENALTY[np.minimum(doors, len(PENALTY) - 1)]
            shut_to = (shut * rest).sum(1)
            promise = got + self.optimistic(to, rest, self.horizon - t)
            best = np.lexsort((shut_to, -np.round(promise, 10)))
            if len(best) > width:
                dropped = max(dropped, float(promise[best[width:]].max()))
                best = best[:width]
            cell, unseen, gain, open_, code = to[best], rest[best], got[best], doors[best], code_to[best]
            parents.append(parent[best])
            cells.append(cell)
        at = int(gain.argmax())
        value = float(gain[at])
        path = [int(cells[-1][at])]
        for t in range(self.horizon - 1, -1, -1):
            at = int(parents[t][at])
            path.append(int(cells[t][at]))
        return value, max(value, dropped), np.array(path[::-1])
