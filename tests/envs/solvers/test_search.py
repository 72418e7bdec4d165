"""Searching for a hidden goal: published figures, brute force over all plans, and priors that are not uniform."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from gumdrop.envs.solvers.search import best_search
from gumdrop.store.arrays import Array


def grid(side: int) -> Array:
    """Where stay, up, down, left, right lead on an open board, (cells, 5)."""
    i = np.arange(side * side)
    y, x = i // side, i % side
    moves = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    return np.stack([np.clip(y + dy, 0, side - 1) * side + np.clip(x + dx, 0, side - 1) for dy, dx in moves], 1)


def worth(path: Array, prior: Array, hit: float, miss: float) -> float:
    """The definition, step by step: for each goal, walk the path until it is met, then stay."""
    total = 0.0
    for goal, p in enumerate(prior):
        found = False
        for cell in path[1:]:
            found = found or cell == goal
            total += p * (hit if found else miss)
    return total


def is_walk(path: Array, neighbours: Array) -> bool:
    return all(to in neighbours[at] for at, to in itertools.pairwise(path.tolist()))


def test_dark_room_10_and_9() -> None:
    uniform = np.full(100, 0.01)
    corner = best_search(grid(10), 0, uniform, 100)
    assert corner.exact and corner.value == pytest.approx(50.5)  # a new cell in every step: sum of 1..100, over 100
    assert sorted(corner.path[1:].tolist()) == list(range(100)) and is_walk(corner.path, grid(10))
    centre = best_search(grid(9), 40, np.full(81, 1 / 81), 20)
    assert centre.exact and round(centre.value, 2) == 2.59


def test_varibad_grid() -> None:
    prior = np.ones(25)
    prior[[0, 1, 5, 6]] = 0  # the start and its three neighbours hold no goal
    prior /= 21
    found = best_search(grid(5), 0, prior, 15, hit=1.0, miss=-0.1)
    assert found.exact and found.value == pytest.approx(4.0)
    assert worth(found.path, prior, 1.0, -0.1) == pytest.approx(found.value) and is_walk(found.path, grid(5))


@pytest.mark.parametrize("seed", range(12))
def test_against_all_plans(seed: int) -> None:
    """Random directed worlds and priors: no sequence of actions does better, and the bound holds even for one path."""
    rng = np.random.default_rng(seed)
    cells, actions, horizon = 7, 3, 6
    neighbours = rng.integers(cells, size=(cells, actions))
    neighbours[:, 0] = np.arange(cells)
    prior = rng.dirichlet(np.ones(cells)) * (rng.random(cells) < 0.8)
    prior /= prior.sum()
    best = -np.inf
    for plan in itertools.product(range(actions), repeat=horizon):
        path = [0]
        for a in plan:
            path.append(int(neighbours[path[-1], a]))
        best = max(best, worth(np.array(path), prior, 2.0, -0.5))
    found = best_search(neighbours, 0, prior, horizon, hit=2.0, miss=-0.5)
    assert found.exact and found.value == pytest.approx(best, abs=1e-9)
    assert worth(found.path, prior, 2.0, -0.5) == pytest.approx(found.value) and is_walk(found.path, neighbours)
    narrow = best_search(neighbours, 0, prior, horizon, hit=2.0, miss=-0.5, beam=1)
    assert narrow.value <= best + 1e-9 <= narrow.bound + 2e-9


def test_walls_make_the_relaxation_loose() -> None:
    """A star of three arms of length 2: to search the next arm means to walk back, which the bound must not promise."""
    neighbours = np.array([[0, 1, 3, 5], [1, 0, 2, 1], [2, 1, 2, 2], [3, 0, 4, 3], [4, 3, 4, 4], [5, 0, 6, 5], [6, 5, 6, 6]])
    found = best_search(neighbours, 0, np.full(7, 1 / 7), 12)
    # One arm at 12, 11, back, the hub at 9, an arm at 8, 7, twice back, the last arm at 4, 3.
    assert found.exact and found.value == pytest.approx((12 + 11 + 9 + 8 + 7 + 4 + 3) / 7)


def test_edges() -> None:
    nothing = best_search(grid(3), 4, np.full(9, 1 / 9), 0, miss=-1)
    assert nothing.value == nothing.bound == 0 and nothing.path.tolist() == [4]
    known = np.zeros(9)
    known[0] = 1
    assert best_search(grid(3), 8, known, 10).value == pytest.approx(7)  # four steps away: arrives with the fourth
    away = np.array([[0, 0], [1, 1]])
    assert best_search(away, 0, np.array([0.0, 1.0]), 5, miss=-1).value == -5  # out of reach


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neighbours": np.array([[1], [0]])}, "cell 0 cannot be stayed on"),
        ({"neighbours": np.array([[0], [2]])}, "leads outside 0..1"),
        ({"neighbours": np.zeros((2, 2))}, "whole numbers"),
        ({"prior": np.array([0.5, 0.6])}, "sum to 1"),
        ({"prior": np.array([1.0])}, "2 probabilities"),
        ({"start": 2}, "start is 2"),
        ({"horizon": -1}, "horizon is -1"),
        ({"hit": -1.0}, "not looked for"),
        ({"beam": 0}, "beam is 0"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {
        "neighbours": np.array([[0, 1], [0, 1]]), "start": 0, "prior": np.array([0.5, 0.5]), "horizon": 3
    }  # fmt: skip
    with pytest.raises(ValueError, match=message) as error:
        best_search(**(asked | change))
    assert "\n" not in str(error.value)
