"""Each scripted collector on a board laid by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.registry import make_world
from gumdrop.envs.rng import copy_seeds, fresh_streams
from gumdrop.envs.worlds.candy.inhabitants import NAMES, intent, towards

LEFT, DOWN, RIGHT, UP, STAY = range(5)


def decides(name: str, board: str, me: tuple[int, int], other: tuple[int, int], state: Any = None, **options: Any) -> int:
    """What the inhabitant `name` at `me` does; `other` is the agent. Digits are kinds, one above the last is waste."""
    rows = board.split("/")
    size, kinds = len(rows), len(options.get("values", (1.0, 2.0, 5.0)))
    cells = [(y * size + x, int(rows[y][x])) for y in range(size) for x in range(size) if rows[y][x] != "."]
    candies = [(at, kind) for at, kind in cells if kind <= kinds]
    options = {"size": size, "slip": 0.0, "candies": len(candies), "inhabitants": (name,), "deadline": 100} | options
    world: Any = make_world("candy", options)
    s, c, rng = world.allocate(1), world.constants(), fresh_streams(copy_seeds(0, 1))
    for at, kind in cells:
        s.candy[0, at] = kind
    for n, (at, kind) in enumerate(candies):
        s.spot[0, n], s.grows[0, n] = at, kind
    s.y[0], s.x[0] = (other[0], me[0]), (other[1], me[1])
    s.waste[0], s.type[0, 1], s.level[0] = len(cells) - len(candies), NAMES.index(name), 1
    for field, value in (state or {}).items():
        getattr(s, field)[0] = value
    with np.errstate(over="ignore"):
        return int(intent(s, 0, 1, c, rng))


def test_towards() -> None:
    assert [towards(*d) for d in ((0, -3), (2, 1), (0, 1), (-2, 1), (0, 0), (2, -2))] == [LEFT, DOWN, RIGHT, UP, STAY, LEFT]


def test_greedy_goes_to_the_nearest_and_shuns_poison() -> None:
    assert decides("greedy", "1..../...../...../...../...3.", (1, 0), (4, 4)) == UP
    assert decides("greedy", "1..../...../...../...../...3.", (4, 2), (4, 4)) == RIGHT
    assert decides("greedy", "1..../...../...../...../...2.", (1, 0), (4, 4), values=(-1.0, 1.0)) == RIGHT
    assert decides("greedy", "1..../...../...../...../.....", (1, 0), (4, 4), values=(-1.0, 1.0)) == STAY


@pytest.mark.parametrize("change", ["fixed", "seasons", "switch", "drift", "reaction"])
def test_they_go_by_what_a_candy_is_worth_now(change: str) -> None:
    """Two kinds have each other's values by now, if values change at all. For level-1 the size counts, not the sign alone."""
    board = "1..../...../...../...../....2"
    for name, values in (("greedy", (2.0, -1.0)), ("level-1", (2.0, -1.0)), ("level-1", (5.0, 2.0))):
        options: dict[str, Any] = {"values": values, "change": change}
        now = {"shift": 1} if change in ("seasons", "switch") else {"value": (0.0, *values[::-1])} if change != "fixed" else {}
        begun = {"value": (0.0, *values)} if "value" in now else {}
        assert decides(name, board, (2, 1), (2, 4), begun, **options) == UP
        assert decides(name, board, (2, 1), (2, 4), now, **options) == (UP if change == "fixed" else RIGHT)


@pytest.mark.parametrize("change", ["fixed", "seasons", "reaction"])
def test_where_no_kind_has_a_value_all_are_as_good(change: str) -> None:
    for name in ("greedy", "level-1"):
        assert decides(name, "1..../...../...../...../....2", (1, 0), (4, 4), values=(0.0, 0.0), change=change) == UP


def test_denier_wants_what_its_rival_wants() -> None:
    board = "1..../...../...../...../....1"
    assert decides("denier", board, (1, 0), (3, 4)) == RIGHT
    assert decides("greedy", board, (1, 0), (3, 4)) == UP
    assert decides("denier", board, (3, 3), (3, 4), zap=3) == 5
    assert decides("denier", board, (3, 3), (3, 4), zap=3, state={"frozen": (2, 0)}) != 5


def test_tit_for_tat_respects_property_until_robbed() -> None:
    board = "1..../...../...../...../....2"  # kind 1 is the agent's, kind 2 its own
    assert decides("tit-for-tat", board, (1, 0), (0, 4), values=(1.0, 1.0)) == RIGHT
    assert decides("tit-for-tat", board, (1, 0), (0, 4), values=(1.0, 1.0), state={"grudge": (0, 1)}) == UP


def test_cleaner_cleans_and_free_rider_does_not() -> None:
    board, options = "2..../...../...../...../....1", {"values": (1.0,), "regrowth": "cleaning"}
    assert decides("cleaner", board, (1, 0), (4, 0), **options) == 5
    assert decides("cleaner", board, (3, 0), (4, 4), **options) == UP
    assert decides("free-rider", board, (1, 0), (4, 0), **options) == RIGHT
    assert decides("cleaner", "...../...../...../...../....1", (3, 4), (4, 0), **options) == DOWN


def test_free_rider_leaves_what_needs_two() -> None:
    board, options = "2..../...../...../...../....1", {"values": (1.0, 9.0), "needs": (1, 2)}
    assert decides("free-rider", board, (1, 0), (4, 0), **options) == RIGHT
    assert decides("greedy", board, (1, 0), (4, 0), **options) == UP


def test_levels_of_reasoning() -> None:
    board = "1...3/...../...../...../1...."
    assert decides("level-1", board, (1, 0), (0, 3)) == RIGHT, "5 / 6 is more than 1 / 2"
    assert decides("level-2", board, (1, 0), (0, 3)) == UP, "the rival is at the large one first"
    assert decides("level-2", "....3/...../...../...../.....", (1, 0), (0, 3)) == RIGHT, "nothing else: try all the same"


def test_switcher_turns_at_half_time() -> None:
    board = "1..../...../...../...../....1"
    assert decides("switcher", board, (1, 0), (3, 4), state={"time": 49}) == UP
    assert decides("switcher", board, (1, 0), (3, 4), state={"time": 50}) == RIGHT


def test_level_0_is_uniform_and_others_draw_nothing() -> None:
    world = make_world("candy", {"inhabitants": ("level-0",), "slip": 0.0, "size": 12, "deadline": 100})
    engine = Engine(world, 500, threads=1)
    counts = np.zeros(5)
    for _ in range(4):
        engine.step(np.full((500, 1), STAY))
        counts += np.bincount(engine.state.intent[:, 1], minlength=5)
    assert (abs(counts - 400) < 90).all()


def test_drawn_types_vary_and_show_where_they_may() -> None:
    options = {"drawn_inhabitants": 1, "inhabitants": ("greedy", "denier"), "inhabitants_hidden": False}
    engine = Engine(make_world("candy", options), 200, threads=1)
    types = engine.state.type[:, 1]
    assert set(types.tolist()) == {0, 1} and 60 < types.sum() < 140
    assert (engine.obs[:, 0, -1].reshape(200, -1)[np.arange(200), types] == 1).all()
    assert (engine.obs[:, 0, -1].reshape(200, -1).sum(1) == 1).all()


def test_a_greedy_rival_costs_reward_and_is_no_agent() -> None:
    alone, rival = (Engine(make_world("candy", o), 512, threads=1) for o in ({}, {"inhabitants": ("greedy",)}))
    assert rival.num_agents == 1 and rival.obs.shape[2] == alone.obs.shape[2] + 1
    rng, got = np.random.default_rng(0), [0.0, 0.0]
    for _ in range(28):
        action = rng.integers(5, size=(512, 1))
        for n, env in enumerate((alone, rival)):
            got[n] += float(env.step(action).reward.sum())
    assert got[1] < 0.8 * got[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_inhabitant_plays(name: str) -> None:
    options = {"regrowth": "cleaning", "values": (1.0,), "zap": 3, "size": 7, "deadline": 30}
    engine = Engine(make_world("candy", options | {"agents": 2, "inhabitants": (name,)}), 64, threads=1)
    rng, moved = np.random.default_rng(1), 0
    for _ in range(29):
        before = engine.state.x[:, 2].copy(), engine.state.y[:, 2].copy()
        engine.step(rng.integers(7, size=(64, 2)))
        moved += int(((engine.state.x[:, 2] != before[0]) | (engine.state.y[:, 2] != before[1])).sum())
    assert moved > 0
