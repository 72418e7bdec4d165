"""Boards: what generators make, and what ASCII layouts may say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, stats

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world
from gumdrop.envs.worlds.maze.tiles import DOOR, FLOOR, GENERATORS, GOAL, KEY, WALL, parse_layout
from gumdrop.store.arrays import Array


def boards(layout: str, size: int, n: int, seed: int = 0, **options: Any) -> tuple[Array, Array]:
    """n fresh boards (n, size, size), and rows and columns of the starts (n, 2)."""
    options = {"layout": layout, "size": size, "observe": "coordinates", "view": 3, **options}
    engine = Engine(make_world("maze", options), num_envs=n, seed=seed, threads=1)
    tiles = engine.state.tiles[:, :-7].reshape(n, size + 2, size + 2)
    assert (tiles[:, [0, -1]] == WALL).all() and (tiles[:, :, [0, -1]] == WALL).all()
    return tiles[:, 1:-1, 1:-1].copy(), np.stack(engine.world._place(engine.state.cell), 1)


def parts(free: Array) -> tuple[int, Array]:
    """Connected parts of all boards at once (n, H, W); walls between boards because only neighbours in a board count."""
    cross = np.zeros((3, 3, 3), np.bool_)
    cross[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    labels, count = ndimage.label(free, cross)
    return count, labels


@pytest.mark.parametrize(
    ("layout", "size", "options"),
    [
        ("maze", 15, {}),
        ("prim", 15, {}),
        ("wilson", 15, {}),
        ("braided", 15, {"loops": 0.5}),
        ("rooms", 15, {"rooms": 3}),
        ("rooms", 16, {"rooms": 4, "loops": 0.3}),
        ("caves", 15, {}),
        ("open", 4, {}),
        ("door-key", 5, {}),
        ("door-key", 9, {}),
    ],
)
def test_ten_thousand_boards_can_be_solved(layout: str, size: int, options: dict[str, Any]) -> None:
    """All floor hangs together on every board, with one goal and the start on it. A locked door parts door-key's boards."""
    tiles, start = boards(layout, size, 10_000, **options)
    inside = np.arange(len(tiles))
    assert set(np.unique(tiles)) <= ({FLOOR, WALL, GOAL} | ({KEY, DOOR} if layout == "door-key" else set()))
    assert ((tiles == GOAL).sum((1, 2)) == 1).all()
    assert (tiles[inside, start[:, 0], start[:, 1]] == FLOOR).all()
    assert (tiles[:, [0, -1]] == WALL).all() and (tiles[:, :, [0, -1]] == WALL).all()
    count, _ = parts(tiles != WALL)
    assert count == len(tiles), "one part each"
    if layout == "door-key":
        count, labels = parts((tiles != WALL) & (tiles != DOOR))
        assert count == 2 * len(tiles)
        key, goal = (np.argwhere(tiles == code) for code in (KEY, GOAL))
        here = labels[inside, start[:, 0], start[:, 1]]
        assert (labels[tuple(key.T)] == here).all() and (labels[tuple(goal.T)] != here).all()
    if layout in ("maze", "prim", "wilson", "braided"):
        rooms = (size - 1) // 2
        free = (tiles != WALL)[:, 1:-1, 1:-1]
        assert free[:, ::2, ::2].all() and not free[:, 1::2, 1::2].any()
        doors = free[:, 1::2, ::2].sum((1, 2)) + free[:, ::2, 1::2].sum((1, 2))
        if layout == "braided":
            assert (doors >= rooms**2 - 1).all() and doors.mean() > rooms**2 + 1
        else:
            assert (doors == rooms**2 - 1).all(), "a spanning tree"


def dead_ends(tiles: Array) -> Array:
    """How many rooms of each maze have one way out."""
    free = (tiles != WALL).astype(int)
    ways = free[:, :-2, 1:-1] + free[:, 2:, 1:-1] + free[:, 1:-1, :-2] + free[:, 1:-1, 2:]
    return np.asarray((ways[:, ::2, ::2] == 1).sum((1, 2)))


def test_algorithms_have_their_own_looks() -> None:
    """Depth-first search makes long corridors, Prim many short dead ends, Wilson something between; braiding opens them."""
    found = {name: dead_ends(boards(name, 15, 2000, loops=1.0 * (name == "braided"))[0]).mean() for name in GENERATORS[:4]}
    assert found["braided"] == 0
    assert found["maze"] < 7 < 13 < found["wilson"] < 16 < found["prim"]


@pytest.mark.parametrize(("width", "trees"), [(5, 4), (7, 192)])
def test_wilson_is_uniform_over_spanning_trees(width: int, trees: int) -> None:
    """A 2 x 2 grid of rooms has 4 spanning trees, 3 x 3 has 192 (Kirchhoff). Depth-first search is far from uniform."""
    for layout, uniform in (("wilson", True), ("maze", width == 5), ("prim", width == 5)):
        tiles, _ = boards(layout, width, 100 * trees, seed=1)
        counts = Counter(row.tobytes() for row in (tiles == WALL))
        assert len(counts) <= trees
        observed = np.zeros(trees)
        observed[: len(counts)] = list(counts.values())
        p = stats.chisquare(observed).pvalue
        assert (p > 1e-3) == uniform, (layout, p)


def test_starts_and_goals_are_uniform() -> None:
    tiles, start = boards("open", 5, 9000)
    goals = np.argwhere(tiles == GOAL)[:, 1:]
    seen = Counter(map(tuple, np.concatenate((start, goals), 1).tolist()))
    assert len(seen) == 9 * 8 and stats.chisquare(list(seen.values())).pvalue > 1e-3


def test_doorways_join_rooms() -> None:
    """Without loops 3 x 3 rooms have 8 doorways, with loops=1 all 12."""
    for loops, doors in ((0.0, 8), (1.0, 12)):
        tiles, _ = boards("rooms", 13, 200, rooms=3, loops=loops)
        free = tiles != WALL
        lines = free[:, [4, 8], :].sum((1, 2)) + free[:, :, [4, 8]].sum((1, 2))
        assert (lines == doors).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_levels_are_drawn_uniformly(split: str) -> None:
    env = make("maze", {"levels": 5, "held_out": 7, "split": split, "size": 7}, num_envs=5000, seed=3)
    counts = np.bincount(env.state.level)  # type: ignore[attr-defined]
    assert len(counts) == (5 if split == "train" else 7) and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("size", "n"), [(5, 20), (7, 300)])
def test_held_out_levels_never_occur_in_training(size: int, n: int) -> None:
    """Even where boards repeat all the time: 2 x 2 rooms make 4 mazes with 12 places for start and goal each."""
    options = {"levels": n, "held_out": n, "size": size, "view": 3}
    train, test = (make_world("maze", options | {"split": split}).constants() for split in ("train", "test"))
    looks = [{b.tobytes() + s.tobytes() for b, s in zip(c.boards, c.starts, strict=True)} for c in (train, test)]
    assert len(looks[0]) == len(looks[1]) == n and not looks[0] & looks[1]
    more = make_world("maze", options | {"held_out": 1}).constants()
    np.testing.assert_array_equal(more.boards, train.boards)  # training does not depend on what is held out
    env = make("maze", options, num_envs=64, seed=1)
    seen = set()
    rng = np.random.default_rng(0)
    for _ in range(300):
        seen |= {train.boards[k].tobytes() + train.starts[k].tobytes() for k in env.state.level}  # type: ignore[attr-defined]
        env.step(rng.integers(4, size=(64, 1)))
    assert not seen & looks[1] and seen <= looks[0]
    with pytest.raises(ValueError, match="different boards"):
        make("maze", {"levels": 40, "held_out": 40, "size": 5})


def test_few_and_many_levels_are_the_same_boards() -> None:
    """One board comes from plain Python, many from compiled rules."""
    one, many = (make_world("maze", {"levels": n, "size": 9, "layout": "wilson"}).constants() for n in (1, 60))
    np.testing.assert_array_equal(one.boards[0], many.boards[0])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("S.#/..", "lengths"),
        ("S.Z/..G", "layout has"),
        ("S../...", "start S and at least one goal"),
        ("S..0/..G.", "come in pairs"),
        ("SC/.G", "two goals"),
        ("SCC/G.G", "2 cues"),
        ("", "empty"),
        ("S" * 257 + "G", "at most 256"),
    ],
)
def test_layouts_with_faults(layout: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_layout(layout)
    with pytest.raises(ValueError, match=message):
        make("maze", {"layout": layout})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 10}, "odd"),
        ({"layout": "rooms", "size": 6}, "need size 7"),
        ({"layout": "open", "size": 3}, "size 4"),
        ({"layout": "caves", "size": 4}, "size 5"),
        ({"moves": "fall"}, "layout to fall"),
        ({"split": "test"}, "held_out"),
        ({"held_out": 3}, "levels"),
        ({"occlusion": True, "view": 0}, "windows"),
        ({"layout": "S.G", "goal": "random"}, "leave G out"),
        ({"layout": "S..", "goal": "random", "goal_distance": 3}, "goal_distance is 3"),
        ({"layout": "S.G", "levels": 3}, "levels are boards of a generator"),
        ({"layout": "SG.G", "show_goal": False}, "hides one goal"),
        ({"layout": "two-rooms", "scramble": True}, "moves=fall"),
        ({"shaping": "distance"}, "known beforehand"),
        ({"layout": "t-maze", "size": 255}, "252 at most"),
        ({"start": "random"}, "drawn with it"),
        ({"goal": "random", "goal_distance": 2}, "drawn with it"),
        ({"maze_seed": 3}, "set fresh=false or levels"),
        ({"rooms": 4}, "layout=rooms"),
        ({"layout": "caves", "loops": 0.5}, "layout=braided"),
        ({"layout": "two-rooms", "goal_distance": 4}, "goal=random"),
        ({"layout": "frozenlake4", "size": 8}, "this layout has its own"),
        ({"size": 201, "levels": 1000}, "more than 33,554,432"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make("maze", options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "solvable"),
    [
        ({"layout": "S.#G"}, False),
        ({"layout": "SHG"}, False),  # through a hole leads no way
        ({"layout": "S<G"}, False),
        ({"layout": "S>G"}, True),
        ({"layout": "SDG"}, False),
        ({"layout": "SKDG"}, True),
        ({"layout": "S0#/#0G"}, True),
        ({"layout": "SI../#G##"}, False),  # nobody turns on ice
        ({"layout": "S#/#G"}, False),
        ({"layout": "S#/#G", "moves": "eight"}, True),
        ({"layout": "GCS.#G"}, False),  # the cue may tell the goal behind the wall
        ({"layout": "CS/GG"}, True),
        ({"layout": ".#.#G", "start": "random"}, False),
        ({"layout": "..#.G", "start": "random"}, True),  # from somewhere
        ({"layout": "S#", "goal": "random", "goal_distance": 0}, True),  # where one begins
        ({"layout": "G.#/#S#", "moves": "fall"}, False),
    ],
)
def test_layouts_without_a_way(options: dict[str, Any], solvable: bool) -> None:
    if solvable:
        make("maze", options)
    else:
        with pytest.raises(ValueError, match="no way leads from the start to a goal"):
            make("maze", options)


def test_held_out_boards_are_other_boards_where_the_goal_is_hidden_and_drawn() -> None:
    """Where the generator put a goal, nobody will ever see: it must not make one board count as two."""
    options = {"size": 5, "levels": 3, "held_out": 1, "goal": "random", "start": "random", "show_goal": False}
    boards = [make_world("maze", options | {"split": split}).constants().boards for split in ("train", "test")]
    assert len({board.tobytes() for part in boards for board in part}) == 4
    with pytest.raises(ValueError, match="only 4 different boards"):  # 2 x 2 rooms have four spanning trees
        make("maze", options | {"levels": 4})


def test_models_that_would_not_fit_are_not_built() -> None:
    """Boards with keys are kept for every state: a large one with ten keys would take gigabytes."""
    few = "K" * 2 + "D" + "S" + "." * 40 + "G"
    many = "/".join([few, *["K" + "." * 44] * 8, *["." * 45] * 20])
    small, large = make_world("maze", {"layout": few}), make_world("maze", {"layout": many})
    assert small.solver == "dynamic programming" and small.model(Engine(small, threads=1).state, 0) is not None
    assert large.solver == "" and large.model(Engine(large, threads=1).state, 0) is None
