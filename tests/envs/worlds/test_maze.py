"""Mazes: the tables of Gymnasium's worlds, tiles and moves by hand, sight, hidden goals, shaping."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest

from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.make import make
from gumdrop.envs.registry import make_world, presets
from gumdrop.envs.world import Model
from gumdrop.envs.worlds.maze.tiles import AGENT, CUE, DOOR, FLOOR, GOAL, HEADING, HOLDER, HOLE, KEY, UNSEEN, WALL, parse_layout
from gumdrop.envs.worlds.maze.world import PALETTE
from gumdrop.store.arrays import Array

LEFT, DOWN, RIGHT, UP, STAY = range(5)


def table(model: Model, state: int, action: int) -> dict[tuple[int, float, bool], float]:
    """{(next state, reward, end): probability} of one row of a model."""
    found: dict[tuple[int, float, bool], float] = {}
    for p, to, r, end in zip(
        model.probability[state, action],
        model.next_state[state, action],
        model.reward[state, action],
        model.terminated[state, action],
        strict=True,
    ):
        if p > 0:
            key = (int(to), float(r), bool(end))
            found[key] = found.get(key, 0.0) + float(p)
    return found


@pytest.mark.parametrize(
    ("id", "theirs", "options", "order"),
    [
        ("frozenlake", "FrozenLake-v1", {}, (0, 1, 2, 3)),
        ("frozenlake8", "FrozenLake8x8-v1", {}, (0, 1, 2, 3)),
        ("cliffwalking", "CliffWalking-v1", {}, (3, 2, 1, 0)),  # theirs: up, right, down, left
    ],
)
def test_transition_tables_equal_gymnasiums(id: str, theirs: str, options: dict[str, Any], order: tuple[int, ...]) -> None:
    """Our action order[a] is their action a; states are cells, row by row. States that end an episode have no rows of ours."""
    tables: Any = gymnasium.make(theirs, **options).unwrapped
    world = make_world(id)
    engine = Engine(world, threads=1)
    model = world.model(engine.state, 0)
    assert model is not None
    rows, columns = world.places(model)  # type: ignore[attr-defined]
    number = rows * world.scene(engine.state, 0).cells.shape[1] + columns  # type: ignore[union-attr]
    assert number[model.start] == int(np.argmax(tables.initial_state_distrib))
    ends = {to for row in tables.P.values() for way in row.values() for _, to, _, end in way if end}
    if id == "cliffwalking":
        ends |= set(range(37, 47))  # the cliff itself: nobody stands there
    checked = 0
    for state, row in tables.P.items():
        if state in ends:
            continue
        mine = int(np.flatnonzero(number == state)[0])
        for a, outcomes in row.items():
            want: dict[tuple[int, float, bool], float] = {}
            for p, to, r, end in outcomes:
                want[int(to), float(r), bool(end)] = want.get((int(to), float(r), bool(end)), 0.0) + p
            got = {(int(number[to]), r, end): p for (to, r, end), p in table(model, mine, order[a]).items()}
            assert got.keys() == want.keys()
            for key, p in want.items():
                assert got[key] == pytest.approx(p, abs=1e-12)
            checked += 1
    assert checked == 4 * (len(tables.P) - len(ends))


@pytest.mark.parametrize(
    ("id", "random", "optimal", "places"),
    [
        ("frozenlake", 0.0139, 0.7442, 4),
        ("frozenlake8", None, 0.9132, 4),
        ("cliffwalking", None, -13.0, 6),
        ("deep-sea", -0.005 + 2.0**-20, 0.99, 8),
        ("dark-room", 1.0, 50.5, 6),
        ("dark-room-9", 20 / 81, 2.59, 2),
        ("varibad-grid", None, 4.0, 1),
        ("t-maze", None, 1.0, 6),
        ("door-key", None, 1.0, 6),
        ("ice-maze", None, 1.0 - 0.15, 6),
    ],
)
def test_known_values(id: str, random: float | None, optimal: float, places: int) -> None:
    lines = make(id).yardstick()
    assert lines is not None and lines.optimal[0] == pytest.approx(optimal, abs=0.51 * 10.0**-places)
    if random is not None:
        assert lines.random[0] == pytest.approx(random, abs=1e-4)


@pytest.mark.parametrize(
    ("id", "known", "random"), [("dark-room", 91.99, 1.0), ("dark-room-9", 16.54, 20 / 81), ("varibad-grid", 11.07, None)]
)
def test_hidden_goals_once_known(id: str, known: float, random: float | None) -> None:
    """The model knows the goal: its optimum, on average over goals, is the line of later episodes."""
    world = make_world(id)
    engine = Engine(world, 3000, threads=1)
    goals, counts = np.unique(engine.state.goal, return_counts=True)
    assert len(goals) == {"dark-room": 100, "dark-room-9": 81, "varibad-grid": 21}[id]
    best, lazy = [], []
    for goal in goals:
        model = world.model(engine.state, int(np.argmax(engine.state.goal == goal)))
        assert model is not None
        best.append(solve.finite_horizon(model, world.horizon).value[0, model.start])
        lazy.append(solve.evaluate_policy(model, None, world.horizon)[model.start])
    assert np.mean(best) == pytest.approx(known, abs=0.005)
    if random is not None:
        assert np.mean(lazy) == pytest.approx(random, abs=1e-9)
    own = engine.yardstick()
    assert own is not None and own.random[0] == pytest.approx(np.mean(lazy)) and "look for" in own.meaning
    assert counts.min() > 0


def play(options: dict[str, Any], actions: list[int], seed: int = 0) -> tuple[list[tuple[int, int]], list[float], Engine]:
    """Places and rewards of one environment; ends with the last action or the episode."""
    env = Engine(make_world("maze", {"observe": "coordinates", "time_limit": 0, **options}), seed=seed, threads=1)
    places, rewards = [], []
    for a in actions:
        step = env.step(np.array([[a]]), autoreset=False)
        row, column = env.world._place(env.state.cell[0])
        places.append((int(row), int(column)))
        rewards.append(float(step.reward[0, 0]))
        if step.terminated[0]:
            rewards.append(math.inf)
            break
    return places, rewards, env


@pytest.mark.parametrize(
    ("layout", "actions", "places"),
    [
        ("SIII.G", [RIGHT, LEFT], [(0, 4), (0, 0)]),  # to where the ice ends, and back
        ("SII#/G###", [RIGHT, RIGHT, LEFT], [(0, 2), (0, 2), (0, 0)]),  # a wall stops one on the ice
        ("SIIH/G###", [RIGHT], [(0, 3)]),  # into the hole
        ("SI/.I/.#/.G", [RIGHT, DOWN], [(0, 1), (1, 1)]),  # the edge stops one; other ways go on from there
        ("S>.G", [RIGHT, RIGHT, LEFT], [(0, 1), (0, 2), (0, 2)]),  # one-way: on, not back
        ("S<./G##", [RIGHT, RIGHT], [(0, 0), (0, 0)]),
        ("Sv.G/....", [RIGHT, DOWN, RIGHT, UP], [(0, 0), (1, 0), (1, 1), (1, 1)]),
        ("S>/.^/.G", [RIGHT, DOWN, LEFT, DOWN], [(0, 1), (0, 1), (0, 0), (1, 0)]),
        ("S0./#0G", [RIGHT, RIGHT], [(1, 1), (1, 2)]),  # through the teleporter, then on to the goal
        ("S1./1.G", [RIGHT, UP, DOWN], [(1, 0), (0, 0), (0, 1)]),
        ("SD./G##", [RIGHT, RIGHT], [(0, 0), (0, 0)]),  # locked
        ("KSD.G", [LEFT, RIGHT, RIGHT, RIGHT], [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ("KSDDG", [LEFT, RIGHT, RIGHT, RIGHT], [(0, 0), (0, 1), (0, 2), (0, 2)]),  # one key, one door
        ("SKIIDG", [RIGHT, RIGHT, RIGHT], [(0, 1), (0, 4), (0, 5)]),  # a slide opens the door
        ("SIID/G###", [RIGHT], [(0, 2)]),
    ],
)
def test_tiles_by_hand(layout: str, actions: list[int], places: list[tuple[int, int]]) -> None:
    assert play({"layout": layout}, actions)[0] == places


def test_moves_by_hand() -> None:
    room = ".../.S./..G"
    for a, place in enumerate([(1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1), (0, 0), (1, 1)]):
        assert play({"layout": room, "moves": "eight", "stay": True}, [a])[0] == [place]
    left, right, ahead, stay = range(4)
    turning = {"layout": room, "moves": "turn", "stay": True}  # one faces right at first
    assert play(turning, [ahead, left, ahead, left, ahead, stay])[0] == [(1, 2), (1, 2), (0, 2), (0, 2), (0, 1), (0, 1)]
    assert play(turning, [right, ahead, right, ahead])[0] == [(1, 1), (2, 1), (2, 1), (2, 0)]
    deep = {"layout": "deep-sea", "size": 3, "moves": "fall", "move_cost": 0.5}
    assert play(deep, [1, 1, 1])[:2] == ([(1, 1), (2, 2), (3, 3)], [-0.5, -0.5, 0.5, math.inf])
    assert play(deep, [0, 1, 0])[:2] == ([(1, 0), (2, 1), (3, 0)], [0.0, -0.5, 0.0, math.inf])
    diagonal = {"layout": "S./.G/v.", "moves": "eight"}
    assert play(diagonal, [2, 2, 4, 7])[0] == [(1, 0), (2, 0), (2, 1), (1, 0)]


def test_holes_goals_and_rewards() -> None:
    cliff = {"layout": "S.HG/....", "hole_ends": False, "hole_reward": -7, "step_reward": -1}
    assert play(cliff, [RIGHT, RIGHT, RIGHT])[:2] == ([(0, 1), (0, 0), (0, 1)], [-1.0, -7.0, -1.0])
    pays = {"layout": "SG.", "goal_ends": False, "step_reward": -0.25, "stay": True}
    assert play(pays, [RIGHT, STAY, UP, RIGHT, LEFT])[1] == [1.0, 1.0, 1.0, -0.25, 1.0]
    assert play({"layout": "SG.", "hole_reward": 3}, [LEFT, RIGHT, RIGHT])[1] == [0.0, 1.0, math.inf]


def test_cue_tells_the_arm() -> None:
    """Following the cue pays 1 in every episode; a fixed arm in half of them, and nothing else can be seen."""
    env = Engine(make_world("t-maze", {"size": 4}), 2000, seed=1, threads=1)
    cue = env.obs[:, 0, 1, 0].astype(int) - CUE  # left of the start
    assert set(cue.tolist()) == {0, 1} and abs(cue.mean() - 0.5) < 0.05
    for _ in range(4):
        env.step(np.full((2000, 1), RIGHT))
    assert (env.obs[:, 0] == env.obs[0, 0]).all(), "at the junction both arms look the same"
    assert env.obs[0, 0, 0, 1] == env.obs[0, 0, 2, 1] == GOAL
    paid = env.step(np.where(cue == 0, UP, DOWN)[:, None]).reward
    assert (paid == 1).all()
    env.reset(1)
    for a in (RIGHT,) * 4:
        env.step(np.full((2000, 1), a))
    step = env.step(np.full((2000, 1), UP))
    assert step.terminated.all() and 0.45 < step.reward.mean() < 0.55
    assert set(step.reward.ravel().tolist()) == {0.0, 1.0}


def seen(board: Array, y: int, x: int, side: int, blind: tuple[int, ...] = (WALL, DOOR)) -> Array:
    """An independent window with occlusion: exact fractions along each line, no table."""
    from fractions import Fraction

    half = side // 2
    padded = np.pad(board, half, constant_values=WALL)
    out = padded[y : y + side, x : x + side].copy()
    for row in range(side):
        for column in range(side):
            dy, dx = row - half, column - half
            n = max(abs(dy), abs(dx))
            for t in range(1, n):
                on = []
                for v in (dy, dx):
                    whole = Fraction(abs(v) * t, n) + Fraction(1, 2)
                    on.append(half + (1 if v > 0 else -1) * (whole.numerator // whole.denominator))
                if padded[y + on[0], x + on[1]] in blind:
                    out[row, column] = UNSEEN
    return out


@pytest.mark.parametrize("side", [3, 7, 11])
@pytest.mark.parametrize("moves", ["four", "turn"])
def test_occlusion_and_rotation_against_a_slow_version(side: int, moves: str) -> None:
    options = {"layout": "door-key", "size": 9, "view": side, "occlusion": True, "moves": moves, "time_limit": 0}
    env: Any = make("maze", options, num_envs=8, seed=side)
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(40):
        for i in range(8):
            y, x = env.world._place(env.state.cell[i])
            want = seen(env.world._board(env.state, i), y, x, side)
            if env.state.keys[i]:
                want[side // 2, side // 2] = KEY
            if moves == "turn":  # so that the heading is up
                want = np.rot90(want, {0: -1, 1: 2, 2: 1, 3: 0}[int(env.state.heading[i])])
            np.testing.assert_array_equal(env.obs[i, 0], want)
            hidden += int((want == UNSEEN).sum())
        env.step(rng.integers(env.action_space.n, size=(8, 1)))
    assert hidden > 0 or side == 3


def test_whole_board_colours_and_coordinates() -> None:
    layout = "S.K/#DH/..G"
    board = np.array([[AGENT, FLOOR, KEY], [WALL, DOOR, HOLE], [FLOOR, FLOOR, GOAL]])
    codes, rgb, at = (make("maze", {"layout": layout, "view": 0, "observe": o}) for o in ("codes", "rgb", "coordinates"))
    np.testing.assert_array_equal(codes.obs[0, 0], board)
    np.testing.assert_array_equal(rgb.obs[0, 0], PALETTE[board].transpose(2, 0, 1))
    assert at.obs[0, 0].tolist() == [0, 0, 0]
    for _ in range(2):
        codes.step(np.array([[RIGHT]]))
        at.step(np.array([[RIGHT]]))
    assert codes.obs[0, 0, 0].tolist() == [FLOOR, FLOOR, HOLDER] and at.obs[0, 0].tolist() == [0, 2, 1]
    turning = make("maze", {"layout": layout, "view": 0, "moves": "turn"})
    assert turning.obs[0, 0, 0, 0] == HEADING + RIGHT
    for a in (2, 2):
        turning.step(np.array([[a]]))
    assert turning.obs[0, 0, 0, 2] == HOLDER + 1 + RIGHT
    assert make("maze", {"layout": layout, "moves": "turn", "observe": "coordinates"}).obs[0, 0].tolist() == [0, 0, RIGHT, 0]


def test_a_hidden_goal_cannot_be_seen() -> None:
    for view in (0, 7):
        env = make("maze", {"show_goal": False, "view": view, "size": 7}, num_envs=64)
        for _ in range(30):
            assert not (env.obs == GOAL).any()
            env.step(np.random.default_rng(0).integers(4, size=(64, 1)))


def test_sticky_actions() -> None:
    """After a step right, an agent that wants left still goes right with probability .3; the first action is its own."""
    env = Engine(make_world("maze", {"layout": "....S....G", "sticky": 0.3, "observe": "coordinates"}), 20_000, threads=1)
    env.step(np.full((20_000, 1), RIGHT))
    assert (env.obs[:, 0, 1] == 5).all()
    env.step(np.full((20_000, 1), LEFT))
    assert abs((env.obs[:, 0, 1] == 6).mean() - 0.3) < 4 * math.sqrt(0.21 / 20_000)
    assert set(env.obs[:, 0, 1].tolist()) == {4, 6}


@pytest.mark.parametrize("shaping", ["manhattan", "distance"])
def test_shaping_keeps_the_best_policy(shaping: str) -> None:
    """Ng, Harada & Russell 1999: with the agent's gamma, values differ by the start's potential and policies are the same."""
    options = {"layout": "S..#G/.#.../..H../.#.#.", "slip": 0.2, "goal_reward": 2.0}
    gamma, scale = 0.9, 0.25
    plain, shaped = (
        make_world("maze", options),
        make_world("maze", options | {"shaping": shaping, "shaping_gamma": gamma, "shaping_scale": scale}),
    )
    models = [w.model(Engine(w, threads=1).state, 0) for w in (plain, shaped)]
    assert models[0] is not None and models[1] is not None
    a, b = (solve.value_iteration(m, gamma, 1e-10) for m in models)
    cells = parse_layout(options["layout"])  # type: ignore[arg-type]
    if shaping == "manhattan":
        far = {(y, x): abs(y - 0) + abs(x - 4) for y in range(4) for x in range(5)}
    else:  # flood from the goal by hand
        far, ring = {(0, 4): 0}, [(0, 4)]
        while ring:
            y, x = ring.pop(0)
            for there in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= there[0] < 4 and 0 <= there[1] < 5 and cells[there] not in "#H" and there not in far:
                    far[there] = far[y, x] + 1
                    ring.append(there)
    rows, columns = plain.places(models[0])  # type: ignore[attr-defined]
    potential = np.array([-scale * far.get((int(y), int(x)), math.nan) for y, x in zip(rows, columns, strict=True)])
    inside = np.isin(cells[rows, columns], [".", "S"]) & ~np.isnan(potential)
    assert inside.sum() == 14 - (shaping == "distance")  # no way that counts leads out from behind the hole
    np.testing.assert_allclose((b.value + potential)[inside], a.value[inside], atol=1e-6)
    np.testing.assert_array_equal(a.policy[inside], b.policy[inside])


def test_random_starts_and_goals() -> None:
    options = {"layout": ".../.#./...", "start": "random", "goal": "random", "observe": "coordinates", "goal_distance": 2}
    env: Any = make("maze", options, num_envs=4000)
    (y, x), (gy, gx) = env.world._place(env.state.cell), env.world._place(env.state.goal)
    assert (np.maximum(abs(y - gy), abs(x - gx)) == 2).all()
    assert len(set(zip(y.tolist(), x.tolist(), strict=True))) == 8
    assert (env.state.tiles[np.arange(4000), env.state.goal] == GOAL).all()


def test_every_maze_preset_draws() -> None:
    from gumdrop.envs.draw import render

    for id, (cls, preset) in presets().items():
        if cls.__name__ == "Maze":
            env = make(id)
            assert "@" in render.text(env, 0) or preset.options.get("moves") == "turn"
            assert render.rgb(env, 0, 8).any()


@pytest.mark.parametrize(
    ("options", "field", "value", "message"),
    [
        ({"moves": "eight"}, "tiles", 12, "teleporter that the layout does not have"),
        ({"layout": "S0K/.0G"}, "tiles", 11, "lost a teleporter"),
        ({"layout": "SKK/..G"}, "keys", 126, "more keys than can be carried"),
    ],
)
def test_states_that_would_lead_out_of_the_board(options: dict[str, Any], field: str, value: int, message: str) -> None:
    world = make_world("maze", options)
    env = Engine(world, 2)
    state = env.get_state()
    array = state[f"state.{field}"]
    if field == "tiles":
        _, width, pad = world.config.shape  # type: ignore[attr-defined]
        array[1, (pad + 0) * (width + 2 * pad) + pad + 1] = value  # the second cell of the first row
    else:
        array[1] = value
    with pytest.raises(ValueError, match=message):
        env.set_state(state)


@pytest.mark.parametrize(
    "options",
    [{"layout": "open", "size": 5, "fresh": False, "goal_distance": 50}, {"layout": "maze", "levels": 3, "goal_distance": 9}],
)
def test_a_goal_too_far_for_its_board_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no floor cell is farther than"):
        Engine(make_world("maze", options | {"goal": "random"}), 1)
