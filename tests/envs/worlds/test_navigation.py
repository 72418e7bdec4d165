"""Navigation: the numbers of MAML's benchmark, walls that hold, and yardsticks against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gumdrop.envs import registry
from gumdrop.envs.draw import render
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.world import Entity, Scene
from gumdrop.envs.worlds import navigation

PRESETS = ["point-navigation", "point-navigation-visible", "point-sparse", "point-inertia", "point-maze"]


def engine(n: int = 1, id: str = "navigation", seed: int = 0, **options: Any) -> Engine:
    return Engine(registry.make_world(id, options), num_envs=n, seed=seed, threads=1)


def push(env: Engine, x: Any, y: Any) -> Any:
    """One step of all environments by velocities, one for all or one each; environments of obs and reward, and the flags."""
    action = np.zeros((env.num_envs, 1, 2), np.float32)
    action[:, 0, 0], action[:, 0, 1] = np.divide(x, env.constants.push), np.divide(y, env.constants.push)
    step = env.step(action, autoreset=False)
    return step.obs[:, 0].copy(), step.reward[:, 0].copy(), step.terminated.copy()


def test_maml_benchmark_oracle_and_standing_still() -> None:
    """YARDSTICKS: oracle -0.51, standing still -38.3; both also exactly, by the mean distance in a square."""
    n = 200_000
    env = engine(n, seed=5)
    lines = env.world.yardstick(env.state)
    assert lines is not None and lines.meaning == "optimum of an agent that knows the goal"
    goal, oracle = env.state.goal.copy(), np.zeros(n)
    assert (np.abs(goal) <= 0.5).all() and (np.abs(goal.mean(0)) < 0.005).all()
    for _ in range(100):
        way = goal - env.state.position
        oracle += push(env, way[:, 0], way[:, 1])[1]
    error = 4 * oracle.std() / np.sqrt(n)
    corner = (np.sqrt(2) + np.arcsinh(1)) / 3  # mean distance from the corner of a unit square
    exact = 0.0
    for t in range(1, 5):  # after t steps an axis is at the goal with probability t / 5, else uniform over the rest
        rest, done = 0.5 - 0.1 * t, t / 5
        exact -= (1 - done) ** 2 * rest * corner + 2 * done * (1 - done) * rest / 2
    assert round(exact, 2) == -0.51 and abs(oracle.mean() - exact) < error + 1e-4
    assert np.abs(lines.optimal - oracle).max() < 1e-4, "the yardstick of each environment is what greedy movement gets"
    still = engine(2000, seed=6)
    total = sum(push(still, 0, 0)[1] for _ in range(100))
    assert np.allclose(total, -100 * np.hypot(*still.state.goal.T), rtol=1e-5)
    assert round(-100 * corner / 2, 1) == -38.3
    distance = np.hypot(goal[:, 0], goal[:, 1])
    assert abs(distance.mean() - corner / 2) < 4 * distance.std() / np.sqrt(n)


@pytest.mark.parametrize(("reward", "speed"), [("distance", 0.1), ("squared", 0.07)])
def test_random_line_is_what_random_actions_get(reward: str, speed: float) -> None:
    n = 100_000
    env = engine(n, reward=reward, speed=speed, goal=(0.3, -0.2), time_limit=60)
    lines, rng, total = env.world.yardstick(env.state), np.random.default_rng(1), np.zeros(n)
    assert lines is not None and (lines.random == lines.random[0]).all() and (lines.random < lines.optimal).all()
    for _ in range(60):
        total += push(env, *rng.uniform(-speed, speed, (2, n)))[1]
    assert abs(total.mean() - lines.random[0]) < 4 * total.std() / np.sqrt(n)


def test_walk_cost_against_quadrature_over_every_move() -> None:
    """Two steps: Gauss-Legendre over both moves of both axes, 4 dimensions, in place of the Fourier integral."""
    z = np.array([[0.0, 0.0], [0.03, -0.11], [0.4, 0.35], [-0.7, 0.2]])
    nodes, weights = np.polynomial.legendre.leggauss(24)
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2) * 0.1
    weight = np.outer(weights, weights).ravel() / 4
    for one in z:
        first = sum(w * np.hypot(*(one + a)) for w, a in zip(weight, grid, strict=True))
        if np.abs(one).max() > 0.1:  # elsewhere the kink of |.| lies inside, where Gauss-Legendre is poor
            assert navigation.mean_distance(one[None], 0.1)[0] == pytest.approx(first, rel=1e-6)
        second = sum(w * navigation.mean_distance((one + a)[None], 0.1)[0] for w, a in zip(weight, grid, strict=True))
        both = navigation.mean_distance(one[None], 0.1)[0] + second
        assert navigation.walk_cost(one[None], 2, 0.1)[0] == pytest.approx(both, rel=1e-6)
    assert navigation.mean_distance(np.zeros((1, 2)), 0.5)[0] == pytest.approx((np.sqrt(2) + np.arcsinh(1)) / 6, rel=1e-12)
    # far from the start the many small moves are a Gaussian: E|S_t| = s sqrt(pi / 2), s^2 = t / 3
    long = sum(np.sqrt(t * np.pi / 6) for t in range(1, 20_001))
    assert navigation.walk_cost(np.zeros((1, 2)), 20_000, 1.0)[0] == pytest.approx(long, rel=1e-5)
    coarse, fine = (navigation._walk_table(100, 5, k)[1] for k in (1, 2))
    assert np.abs(fine / coarse - 1).max() < 1e-7


def test_where_nothing_is_exact_there_is_no_yardstick() -> None:
    for options in (
        {"noise": 0.1}, {"inertia": True}, {"goal_ends": True}, {"reward": "sparse"}, {"layout": "u-maze"}, {"time_limit": 0},
        {"speed": 0.01},
    ):  # fmt: skip
        env = engine(2, **options)
        assert env.world.yardstick(env.state) is None and env.world.solver == "", options
    assert engine().world.solver == "closed form"


def test_moves_are_clipped_per_axis_and_the_reward_is_the_distance_after() -> None:
    env = engine(1, goal=(0.3, 0.4))
    obs, reward, ended = push(env, 0.05, -7.0)
    assert np.allclose(obs, [[0.05, -0.1]]) and reward[0] == pytest.approx(-np.hypot(0.25, 0.5)) and not ended[0]
    obs, reward, _ = push(env, np.nan, np.inf)  # not a number does not stay
    assert np.allclose(obs, [[0.15, 0.0]]) and np.isfinite(reward).all()
    square = engine(1, goal=(0.3, 0.4), reward="squared")
    assert push(square, 0, 0)[1][0] == pytest.approx(-0.25)


def test_sparse_reward_and_an_end_at_the_goal() -> None:
    env = engine(1, goal=(0.25, 0.0), reward="sparse", goal_radius=0.06, goal_ends=True)
    assert [tuple(float(v[0]) for v in push(env, 0.1, 0)[1:]) for _ in range(2)] == [(0, 0), (1, 1)]
    stays = engine(1, goal=(0.25, 0.0), reward="sparse", goal_radius=0.06)
    seen = [tuple(float(v[0]) for v in push(stays, 0.1, 0)[1:]) for _ in range(4)]
    assert seen == [(0, 0), (1, 0), (1, 0), (0, 0)]


def test_inertia_by_hand() -> None:
    env = engine(1, inertia=True, acceleration=0.04, friction=0.25, speed=0.05, visible=True, goal=(0.5, 0.5))
    # v = 0.75 v + a, at most 0.05: 0.04, then 0.03 + 0.04 -> 0.05, then 0.0375, then 0.028125
    for a, x, v in ((0.04, 0.04, 0.04), (0.04, 0.09, 0.05), (0.0, 0.1275, 0.0375), (0.0, 0.155625, 0.028125)):
        obs, _, _ = push(env, a, -9)
        assert np.allclose(obs[0, [0, 2, 4, 5]], [x, v, 0.5, 0.5], atol=1e-6), (a, obs)
    assert obs[0, 3] == pytest.approx(-0.05), "the other axis is at full speed downwards"


def test_noise_has_its_standard_deviation() -> None:
    n = 50_000
    env = engine(n, noise=0.3)
    push(env, 0.1, 0.0)
    moved = env.state.position - [0.1, 0.0]
    assert np.abs(moved.mean(0)).max() < 4 * 0.3 / np.sqrt(n)
    assert np.abs(moved.std(0) / 0.3 - 1).max() < 4 / np.sqrt(2 * n)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 4 / np.sqrt(n)


@pytest.mark.parametrize("goals", ["square", "disk", "circle", "half-circle"])
def test_goals_come_from_their_distribution(goals: str) -> None:
    n = 40_000
    goal = engine(n, goals=goals, goal_range=2.0).state.goal
    r, angle = np.hypot(*goal.T), np.arctan2(goal[:, 1], goal[:, 0])
    if goals == "square":
        assert np.abs(goal).max() <= 2 and np.abs((goal**2).mean(0) - 4 / 3).max() < 0.03
    else:
        assert abs(np.cos(2 * angle).mean()) < 0.015 and abs(np.cos(angle).mean()) < 0.015
        assert (np.allclose(r, 2)) == (goals != "disk") and r.max() <= 2 + 1e-12
        if goals == "disk":
            assert abs((r**2).mean() - 2) < 0.03, "uniform over the area"
        assert (goal[:, 1].min() >= 0) == (goals == "half-circle")


def test_tasks_are_the_same_goals_in_every_episode_and_seed() -> None:
    def seen(n: int, seed: int, **options: Any) -> set[tuple[float, ...]]:
        return set(map(tuple, engine(n, seed=seed, **options).state.goal.tolist()))

    five = seen(300, 1, tasks=5)
    assert len(five) == 5 and five == seen(300, 2, tasks=5) and seen(40, 3, tasks=1) < five
    assert not five & seen(300, 1, tasks=5, goal_seed=1)
    assert len(seen(300, 1)) == 300 and seen(20, 1, goal=(0.1, 0.2)) == {(0.1, 0.2)}
    assert len(seen(300, 1, layout="maze", tasks=4)) == 4
    assert seen(100, 1, layout="S.G/..#/G..") == {(3.5, 3.5), (1.5, 1.5)}, "a rim was added, y grows upwards"


def body_is_free(env: Engine, cells: Any) -> bool:
    """Whether no corner of any environment's body is in a wall; `cells` from top to bottom."""
    r = env.world.config.radius
    x, y = env.state.position.T
    free = True
    for dx in (-r, r):
        for dy in (-r, r):
            rows, columns = np.floor(y + dy).astype(int), np.floor(x + dx).astype(int)
            free &= bool((cells[::-1][rows, columns] != "#").all())
    return free


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "maze", "size": 9, "speed": 1.0},
        {"layout": "medium", "speed": 0.3, "inertia": True, "acceleration": 0.3, "radius": 0.1},
        {"layout": "u-maze", "speed": 1.0, "noise": 2.0, "radius": 0.49},
        {"layout": "S..#./.#.../..#.G", "speed": 0.9, "radius": 0.0},
    ],
)
def test_nobody_gets_into_a_wall(options: dict[str, Any]) -> None:
    env = engine(500, **options, time_limit=0)
    cells, rng = env.world._cells(), np.random.default_rng(0)
    visited = np.zeros(cells.shape, np.bool_)
    drift = rng.uniform(-1, 1, (2, 500))
    for t in range(150):
        if t % 15 == 0:  # hold a direction for a while, so that walls are met and slid along
            drift = rng.uniform(-1, 1, (2, 500))
        push(env, *drift)
        assert body_is_free(env, cells)
        assert env.world.check_state(env.state) is None
        visited[np.floor(cells.shape[0] - env.state.position[:, 1]).astype(int), env.state.position[:, 0].astype(int)] = True
    assert (visited == (cells != "#")).all(), "every free tile can be reached, and no other one"


def test_a_body_slides_along_a_wall_by_hand() -> None:
    """Start in the middle of tile (1, 1) of a corridor of three tiles, radius 0.2, pushing up and to the right."""
    env = engine(1, layout="#####/#S.G#/#####", radius=0.2, speed=0.5, inertia=False)
    assert env.state.position.tolist() == [[1.5, 1.5]] and env.state.goal.tolist() == [[3.5, 1.5]]
    seen = [push(env, 0.5, 0.5)[0][0] for _ in range(6)]
    x = [2.0, 2.5, 3.0, 3.5, 3.8, 3.8]
    assert np.allclose(seen, [[v, 1.8] for v in x], atol=1e-5)
    assert env.state.position.max() < 3.8, "in front of the wall, not in it"
    assert np.allclose(push(env, -0.1, -0.5)[0], [[3.7, 1.3]], atol=1e-5)
    heavy = engine(1, layout="#####/#S.G#/#####", radius=0.2, speed=0.5, inertia=True, acceleration=0.5, friction=0.0)
    push(heavy, 0.25, 0.5)
    assert np.allclose(heavy.state.velocity, [[0.25, 0.0]]), "the wall takes the velocity against it, not the other"


def test_starts_and_goals_of_mazes_are_free_and_apart() -> None:
    env = engine(3000, layout="maze", size=7, radius=0.3)
    cells = env.world._cells()
    assert body_is_free(env, cells)
    start, goal = (place.astype(int) for place in (env.state.position, env.state.goal))
    assert (start != goal).any(1).all()
    tiles = set(map(tuple, goal.tolist()))
    assert tiles == set(map(tuple, start.tolist())) and len(tiles) == (cells != "#").sum() == 9 + 8
    counts = np.unique(goal[:, 1] * 7 + goal[:, 0], return_counts=True)[1]
    assert ((counts - 3000 / 17) ** 2 / (3000 / 17)).sum() < 39.3, "uniform: chi-square, 16 degrees, p = 0.001"
    assert np.abs(env.state.position - start - 0.5).max() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("size", [5, 9, 31])
def test_depth_first_mazes_are_trees(size: int) -> None:
    boards = {navigation.depth_first_maze(size, seed).tobytes() for seed in range(20)}
    assert len(boards) > 2
    for seed in range(5):
        free = navigation.depth_first_maze(size, seed) != "#"
        rooms = ((size - 1) // 2) ** 2
        assert navigation.connected(free) and free.sum() == 2 * rooms - 1 and not free[0].any() and not free[:, -1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "S.G/.."}, "make them equal"),
        ({"layout": "S.X"}, "use # . S G"),
        ({"layout": "S.S"}, "several starts"),
        ({"layout": "S"}, "fewer than two free tiles"),
        ({"layout": "S.#/##G"}, "falls into parts"),
        ({"layout": "maze", "size": 8}, "try 9"),
        ({"layout": "u-maze", "speed": 2}, "at most 1 tile"),
        ({"layout": "u-maze", "goal": (1, 1)}, "mark it with G"),
        ({"layout": "u-maze", "tasks": 3}, "one of the two"),
        ({"goal": (1e9, 0)}, "1e6"),
        ({"goals": "star"}, "square"),
    ],
)
def test_bad_options_say_the_way_out(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        registry.make_world("navigation", options)
    assert "\n" not in str(error.value)


def test_states_that_rules_cannot_reach_are_refused() -> None:
    env = engine(2, layout="u-maze")
    state = env.get_state()
    for place in ([0.5, 0.5], [-3.0, 1.5], [np.nan, 1.5], [1.1, 1.5], [99.0, 1.0]):
        wrong = {name: array.copy() for name, array in state.items()}
        wrong["state.position"][1] = place
        with pytest.raises(ValueError, match="position"):
            env.set_state(wrong)
    env.set_state(state)


def test_fractions_of_cells_are_drawn_where_they_are() -> None:
    class Stub:
        id, num_agents = "stub", 1

        def __init__(self, column: float) -> None:
            self._scene = Scene(np.full((3, 5), "."), (Entity(1.25, column, "agent"), Entity(0.4, 0.6, "goal")))

        def scene(self, i: int) -> Scene:
            return self._scene

    one: Any = Stub(2.5)
    assert render.text(one, 0).splitlines() == [". G . . .", ". . . @ .", ". . . . ."]
    images = [render.rgb(Stub(column), 0).astype(int) for column in (2.0, 2.5, 3.0)]  # type: ignore[arg-type]
    centres = []
    for image in images:
        blue = (np.abs(image - [0, 114, 178]).max(2) < 40).nonzero()[1]
        centres.append(blue.mean())
    assert np.allclose(np.diff(centres), 24, atol=1), "half a cell of 48 pixels each"


@pytest.mark.parametrize("id", PRESETS)
def test_presets_can_be_drawn_and_mirror_what_they_say(id: str) -> None:
    env = engine(1, id, seed=2)
    assert render.text(env, 0).count("@") == 1 and render.rgb(env, 0).ndim == 3
    before = env.scene(0)
    push(env, 9, 9)
    after = env.scene(0)
    assert before is not None and after is not None
    (_, a), (_, b) = before.entities, after.entities
    assert (b.row < a.row and b.column > a.column) or id == "point-maze", "right is right, and up is up"


def test_the_plane_ends_far_away() -> None:
    env = engine(1, speed=1000.0, time_limit=0)
    env.state.position[0] = [999_999.5, -999_999.5]
    obs, _, _ = push(env, 1000, -1000)
    assert obs.tolist() == [[1e6, -1e6]] and env.observation_space.contains(obs[0])
