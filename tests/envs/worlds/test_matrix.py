"""Matrix games: payoffs, what players see, scripted players and exact yardsticks, against tables written by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gumdrop.configs.loader import parse_options
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.registry import make_world
from gumdrop.envs.solvers import mdp
from gumdrop.envs.worlds.matrix import Matrix, payoff_of
from gumdrop.store.arrays import Array

PRESETS = ["rock-paper-scissors", "matching-pennies", "prisoners-dilemma", "stag-hunt", "chicken", "public-goods"]


def engine(options: dict[str, Any], n: int = 1, id: str = "matrix", seed: int = 0) -> Engine:
    return Engine(make_world(id, options), num_envs=n, seed=seed, threads=1)


def rewards(env: Engine, joint: Any) -> Array:
    """What the agents get for each row of joint actions, (J, agents)."""
    return env.step(np.array(joint)).reward.copy()


@pytest.mark.parametrize(
    ("id", "joint", "want"),
    [
        ("prisoners-dilemma", [(0, 0), (0, 1), (1, 0), (1, 1)], [(3, 3), (0, 5), (5, 0), (1, 1)]),
        ("stag-hunt", [(0, 0), (0, 1), (1, 0), (1, 1)], [(4, 4), (0, 3), (3, 0), (3, 3)]),
        ("chicken", [(0, 0), (0, 1), (1, 0), (1, 1)], [(3, 3), (1, 4), (4, 1), (0, 0)]),
        ("matching-pennies", [(0, 0), (0, 1), (1, 0), (1, 1)], [(1, -1), (-1, 1), (-1, 1), (1, -1)]),
        ("rock-paper-scissors", [(0, 0), (1, 0), (0, 2), (2, 1), (0, 1)], [(0, 0), (1, -1), (1, -1), (1, -1), (-1, 1)]),
        (
            "public-goods",
            [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 1, 0), (1, 1, 0, 1), (1, 1, 1, 1)],
            [(1.6, 1.6, 1.6, 1.6), (2.2, 1.2, 1.2, 1.2), (0.8, 1.8, 1.8, 0.8), (1.4, 1.4, 0.4, 1.4), (1, 1, 1, 1)],
        ),
    ],
)
def test_named_games_pay_what_the_literature_says(id: str, joint: Any, want: Any) -> None:
    np.testing.assert_allclose(rewards(engine({}, len(joint), id), joint), want, rtol=1e-6)


def test_a_payoff_for_each_player() -> None:
    mine = [[[1, 2], [3, 4]], [[10, 20], [30, 40]]]
    joint = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert rewards(engine({"payoff": mine}, 4), joint).tolist() == [[1, 10], [2, 20], [3, 30], [4, 40]]


def test_a_full_tensor_of_three_players() -> None:
    tensor = np.random.default_rng(0).integers(-9, 9, (3, 2, 2, 2))
    joint = list(itertools.product(range(2), repeat=3))
    want = [[tensor[(k, *actions)] for k in range(3)] for actions in joint]
    assert rewards(engine({"payoff": tensor.tolist(), "agents": 3}, 8), joint).tolist() == want


def test_a_symmetric_game_counts_the_others() -> None:
    """payoff[own][others who play 1][others who play 2], for four players with three actions."""
    table = np.random.default_rng(1).integers(-9, 9, (3, 4, 4))
    joint = list(itertools.product(range(3), repeat=4))
    want = []
    for actions in joint:
        others = [[a for j, a in enumerate(actions) if j != k] for k in range(4)]
        want.append([table[actions[k], others[k].count(1), others[k].count(2)] for k in range(4)])
    assert rewards(engine({"payoff": table.tolist(), "agents": 4}, 81), joint).tolist() == want


def test_payoffs_from_the_command_line() -> None:
    options = parse_options(["env.payoff=[[0,-2],[7,1]]", "env.opponents=grim", "env.agents=1"], "env.")
    env = engine(options, 2)
    assert rewards(env, [[0], [1]]).tolist() == [[0], [7]] and env.world.config.opponents == ("grim",)
    assert env.world.config.payoff == ((0.0, -2.0), (7.0, 1.0)) and hash(env.world.config)


def test_everybody_sees_oneself_first() -> None:
    env = engine({"rounds": 4, "agents": 3, "opponents": ["always-defect"], "game": "public-goods"})
    assert env.obs[0].tolist() == [[0] * 8 + [1]] * 3
    obs = env.step(np.array([[1, 0, 0]])).obs[0]
    one = {0: [1, 0], 1: [0, 1]}
    played = [1, 0, 0, 1]
    for k in range(3):
        want = sum((one[played[(k + j) % 4]] for j in range(4)), []) + [0.75]
        assert obs[k].tolist() == want
    assert env.step(np.array([[0, 0, 0]])).obs[0, 0, 8] == 0.5


@pytest.mark.parametrize(("observation", "want"), [("clock", [1, 0.75, 0.5]), ("none", [1, 1, 1])])
def test_less_to_see(observation: str, want: list[float]) -> None:
    env = engine({"rounds": 4, "observation": observation})
    seen = [env.obs[0].tolist()] + [env.step(np.array([[0, 1]])).obs[0].tolist() for _ in range(2)]
    assert seen == [[[x], [x]] for x in want] and env.observation_space.shape == (1,)


def test_rounds_end_the_game_and_a_time_limit_cuts_it() -> None:
    env = engine({"rounds": 3}, 5)
    flags = [env.step(np.zeros((5, 2), np.int64)) for _ in range(2)]
    assert not flags[-1].terminated.any()
    step = env.step(np.zeros((5, 2), np.int64))
    assert step.terminated.all() and not step.truncated.any() and (step.final_obs[:, :, -1] == 0).all()
    env = engine({"rounds": 0, "continuation": 0.5, "time_limit": 1}, 4000)
    step = env.step(np.zeros((4000, 2), np.int64))
    assert (step.terminated ^ step.truncated).all() and abs(step.terminated.mean() - 0.5) < 0.04


def test_continuation_gives_a_geometric_length() -> None:
    env, n, d = engine({"rounds": 0, "continuation": 0.7}, 20_000), 20_000, 0.7
    length, alive = np.zeros(n, np.int64), np.ones(n, np.bool_)
    for _ in range(60):
        length += alive
        alive &= ~env.step(np.zeros((n, 2), np.int64), autoreset=False).terminated
    seen = [int((length == t).sum()) for t in range(1, 12)] + [int((length >= 12).sum())]
    want = [n * (1 - d) * d ** (t - 1) for t in range(1, 12)] + [n * d**11]
    assert stats.chisquare(seen, want).pvalue > 1e-3


@pytest.mark.parametrize(
    ("script", "game", "actions", "want"),
    [
        ("tit-for-tat", "prisoners-dilemma", [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]),
        ("grim", "prisoners-dilemma", [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]),
        ("pavlov", "prisoners-dilemma", [0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 1]),
        ("always-cooperate", "prisoners-dilemma", [1, 1, 1], [0, 0, 0]),
        ("always-defect", "prisoners-dilemma", [0, 0, 0], [1, 1, 1]),
        ("always-defect", "rock-paper-scissors", [0, 0, 0], [2, 2, 2]),
        ("best-response", "prisoners-dilemma", [0, 1, 0], [0, 1, 1]),
        ("best-response", "rock-paper-scissors", [0, 1, 2, 2], [0, 1, 2, 0]),
        ("copycat-beater", "rock-paper-scissors", [2, 2, 2, 2], [0, 1, 2, 0]),
        ("best-response", "matching-pennies", [1, 0, 1], [0, 0, 1]),  # player 1 wants unequal coins
    ],
)
def test_scripts_answer_as_they_are_described(script: str, game: str, actions: list[int], want: list[int]) -> None:
    env = engine({"agents": 1, "opponents": script, "game": game})
    played = []
    for action in actions:
        env.step(np.array([[action]]))
        played.append(int(env.state.last[0, 1]))
    assert played == want


def test_random_and_trembling_players() -> None:
    n = 30_000
    env = engine({"agents": 1, "opponents": ["random"], "game": "rock-paper-scissors"}, n)
    env.step(np.zeros((n, 1), np.int64))
    assert stats.chisquare(np.bincount(env.state.last[:, 1], minlength=3)).pvalue > 1e-3
    options = {
        "agents": 1,
        "opponents": ["always-cooperate", "random", "always-defect"],
        "tremble": 0.2,
        "game": "public-goods",
    }
    env = engine(options, n)
    env.step(np.zeros((n, 1), np.int64))
    counts = np.bincount(env.state.last[:, 1:] @ [4, 2, 1], minlength=8)
    law = [p * q * r for p in (0.9, 0.1) for q in (0.5, 0.5) for r in (0.1, 0.9)]
    assert stats.chisquare(counts, n * np.array(law)).pvalue > 1e-3


SCRIPTED: list[dict[str, Any]] = [
    {"opponents": "tit-for-tat"},
    {"opponents": "grim"},
    {"opponents": "pavlov"},
    {"opponents": "always-defect"},
    {"opponents": "best-response", "game": "chicken"},
    {"opponents": "copycat-beater", "game": "matching-pennies"},
    {"opponents": ["grim", "pavlov"], "game": "public-goods", "multiplier": 2.0},
    {"opponents": ["tit-for-tat"], "game": "public-goods", "agents": 2},
    {"opponents": ["pavlov"], "agents": 2, "payoff": [[0, 1, 5], [-2, 0, 3]]},
]


@pytest.mark.parametrize("options", SCRIPTED, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_the_yardstick_against_every_sequence_of_actions(options: dict[str, Any]) -> None:
    """Against players that never draw, the best of all plans is the optimum, and their mean is random play."""
    rounds, options = 4, {"agents": 1, "rounds": 4} | options
    agents = options["agents"]
    plans = np.array(list(itertools.product(range(2), repeat=rounds * agents))).reshape(-1, rounds, agents)
    env = engine(options, len(plans))
    total = sum(env.step(plans[:, t], autoreset=False).reward.mean(1).astype(np.float64) for t in range(rounds))
    line = engine(options, 3).yardstick()
    assert line is not None and line.random.shape == (3,)
    np.testing.assert_allclose(line.optimal, np.max(total), rtol=1e-6)
    np.testing.assert_allclose(line.random, np.mean(total), rtol=1e-6)


@pytest.mark.parametrize(
    ("id", "options", "random", "optimal"),
    [
        ("prisoners-dilemma", {}, 22.5, 30),
        ("prisoners-dilemma", {"rounds": 0, "continuation": 0.9}, 22.5, 30),
        ("prisoners-dilemma", {"rounds": 2, "continuation": 0.5}, 2.25 * 1.5, 4.5),
        ("prisoners-dilemma", {"time_limit": 4}, 9, 12),
        ("stag-hunt", {}, 25, 40),
        ("chicken", {}, 20, 30),
        ("public-goods", {}, 13, 16),
        ("rock-paper-scissors", {}, 0, 0),
        ("matching-pennies", {}, 0, 0),
        ("matrix", {"payoff": [[[3, -1], [-2, 1]], [[-3, 1], [2, -1]]], "rounds": 7}, 7 / 4, 1),  # value 1/7 a round
        ("ipd-tit-for-tat", {}, 4 + 9 * 2.25, 32),  # cooperate until the last round
        ("ipd-tit-for-tat", {"rounds": 0, "continuation": 0.9}, 4 + 9 * 2.25, 30),
        ("ipd-tit-for-tat", {"rounds": 0, "continuation": 0.1}, 4 + 2.25 / 9, 5 + 1 / 9),  # the shadow of the future is short
        ("ipd-tit-for-tat", {"opponents": "always-cooperate"}, 40, 50),
        ("ipd-tit-for-tat", {"opponents": "random"}, 22.5, 30),
        ("ipd-tit-for-tat", {"opponents": "always-cooperate", "tremble": 0.5, "rounds": 1}, 0.75 * 4 + 0.25 * 0.5, 4),
    ],
)
def test_yardsticks_by_hand(id: str, options: dict[str, Any], random: float, optimal: float) -> None:
    line = engine(options, 2, id).yardstick()
    assert line is not None
    np.testing.assert_allclose(line.random, random, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(line.optimal, optimal, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"agents": 4, "payoff": np.random.default_rng(2).normal(size=(3, 4, 4)).tolist()},
        {"agents": 3, "payoff": np.random.default_rng(3).normal(size=(3, 2, 2, 2)).tolist(), "continuation": 0.8},
        {"agents": 2, "opponents": ["random", "pavlov"], "tremble": 0.3, "game": "public-goods", "continuation": 0.9},
        {"agents": 1, "opponents": ["copycat-beater"], "tremble": 0.3, "game": "rock-paper-scissors"},
    ],
    ids=["symmetric", "tensor", "agents and scripts", "alone"],
)
def test_random_play_gets_what_the_yardstick_says(options: dict[str, Any]) -> None:
    n = 40_000
    env, rng = engine(options, n), np.random.default_rng(0)
    line = engine(options).yardstick()
    assert line is not None
    total, alive = np.zeros(n), np.ones(n, np.bool_)
    for _ in range(10):
        action = rng.integers(env.action_space.n, size=(n, env.num_agents))  # type: ignore[attr-defined]
        step = env.step(action, active=alive, autoreset=False)
        total += np.where(alive, step.reward.mean(1), 0)
        alive &= ~step.terminated
    assert not alive.any() and line.optimal[0] > line.random[0]
    assert abs(total.mean() - line.random[0]) < 4 * total.std() / math.sqrt(n)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"game": "rock-paper-scissors", "continuation": 0.8},
        {"game": "public-goods", "opponents": ["grim"], "tremble": 0.4, "continuation": 0.9},
    ],
    ids=["plain", "continuation", "scripted"],
)
def test_game_and_rules_are_the_same_world(options: dict[str, Any]) -> None:
    """Each state and pair of actions 400 times: outcomes by chi-square, rewards exactly."""
    one, repeats = engine(options), 400
    game = one.world.game(one.state, 0)
    assert game is not None
    np.testing.assert_allclose(game.probability.sum(3), 1)
    states, a, b, _ = game.next_state.shape
    assert game.fields["last"][game.start].tolist() == one.state.last[0].tolist()
    state, first, second = (x.ravel() for x in np.indices((states, a, b, repeats))[:3])
    batch = engine(options, len(state), seed=5)
    arrays = batch.get_state()
    arrays["state.last"][:] = game.fields["last"][state]
    batch.set_state(arrays)
    step = batch.step(np.stack((first, second), 1), autoreset=False)
    number = {tuple(row): s for s, row in enumerate(game.fields["last"].tolist())}
    after = np.array([number[tuple(row)] for row in batch.state.last.tolist()])
    outcome = after + states * step.terminated  # an end is another outcome
    values = []
    for cell in range(states * a * b):
        rows = slice(cell * repeats, (cell + 1) * repeats)
        s, i, j = int(state[rows][0]), int(first[rows][0]), int(second[rows][0])
        law = np.zeros(2 * states)
        paid = {}
        for to, p, r, end in zip(*(t[s, i, j] for t in game[:4]), strict=True):
            law[to + states * end] += p
            paid[int(to)] = r
        counts = np.bincount(outcome[rows], minlength=2 * states)
        assert not counts[law == 0].any()
        for k in range(2):
            want = [paid[int(to)][k] for to in after[rows]]
            np.testing.assert_allclose(step.reward[rows, k], want, rtol=1e-6)
        if (law > 0).sum() > 1:
            values.append(stats.chisquare(counts[law > 0], repeats * law[law > 0]).pvalue)
    assert not values or (min(values) > 1e-3 / len(values) and stats.kstest(values, "uniform").pvalue > 1e-4)


def test_zero_sum_games_cancel_out() -> None:
    for id, zero in (("rock-paper-scissors", True), ("matching-pennies", True), ("chicken", False)):
        world = make_world(id)
        game = world.game(world.allocate(1), 0)
        assert game is not None and (np.abs(game.reward.sum(-1)).max() == 0) == zero
        assert world.solver == ("linear programming" if zero else "enumeration")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"game": "matching-pennies"},
        {"agents": 1, "opponents": "pavlov"},
        {"agents": 1, "opponents": ["random"] * 15, "game": "public-goods"},
        {"agents": 2, "opponents": ["grim"] * 14, "game": "public-goods"},
        {"agents": 2, "opponents": ["grim"], "game": "public-goods"},
        {"agents": 16, "game": "public-goods"},
    ],
)
def test_the_table_says_what_there_is(options: dict[str, Any]) -> None:
    world = make_world("matrix", options)
    start = world.allocate(2)  # as reset leaves it; sixteen players need no kernel here
    assert bool(world.solver) == (solve.yardstick(world, start) is not None)
    model = world.model(start, 0)
    assert (model is not None) == (options.get("agents") == 1 and bool(world.solver))
    if model is not None:
        mdp.check_model(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agents": 1}, "add opponents=tit-for-tat or take agents=2"),
        ({"agents": 12, "opponents": ["grim"] * 5}, "take fewer agents or opponents"),
        ({"agents": 3}, "game=public-goods or a payoff"),
        ({"payoff": [[1, 2, 3], [4, 5, 6]]}, "need (A, A) or (2, A, A)"),
        ({"payoff": [[1, 2], [3, 4]], "agents": 3}, "need (2, 3), (A, 3, ...) with A axes or (3, A, ...)"),
        ({"payoff": [[1, 2], [3]]}, "nested lists of numbers"),
        ({"payoff": [[1, "x"], [3, 4]]}, "nested lists of numbers"),
        ({"payoff": [[1, 2], [3, float("inf")]]}, "finite"),
        ({"payoff": [[1], [2]]}, "two actions"),
        ({"payoff": 3}, "two actions"),
        ({"opponents": "tit-for-two-tats", "agents": 1}, "tit-for-tat"),
        ({"rounds": 0}, "would never end"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make_world("matrix", options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_strangers_state_is_refused() -> None:
    env = engine({}, 2)
    for name, value in (("last", 3), ("round", 11), ("round", -1)):
        state = env.get_state()
        state[f"state.{name}"][1] = value
        with pytest.raises(ValueError, match="last or round"):
            env.set_state(state)


def test_a_picture_names_actions_and_payoffs() -> None:
    env = engine({"agents": 1, "opponents": "always-defect"})
    assert env.scene(0).caption == "round 0 of 10"  # type: ignore[union-attr]
    env.step(np.array([[0]]))
    scene = env.scene(0)
    assert scene is not None and scene.caption == "round 1 of 10, payoffs 0, 5"
    assert scene.bars == (("0 cooperate", 0.0), ("1 defect", 1.0))


@pytest.mark.parametrize("id", PRESETS)
def test_presets_are_what_they_are_called(id: str) -> None:
    world = make_world(id)
    assert isinstance(world, Matrix) and world.config.game == id and world.solver


def test_payoff_of_places_every_joint_action() -> None:
    game = payoff_of(np.arange(16).reshape(2, 8)[:, :5], 5)  # two actions, five players: [own][others who play 1]
    joint = np.array([[1, 0, 1, 1, 0]])
    assert game.symmetric and game.of(joint).tolist() == [[10, 3, 10, 10, 3]]
