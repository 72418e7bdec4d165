"""Rules and exact model of each world are the same world: one engine step from known states, counted and compared."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import numpy as np
import pytest

from gumdrop.envs.checks.model_check import REPEATS, Transitions, faults, model_arrays, run
from gumdrop.envs.engine.engine import Engine
from gumdrop.envs.examine import solution as solve
from gumdrop.envs.registry import make_world, presets, worlds
from gumdrop.envs.world import Model

# Beyond the defaults of every world in the registry. Sizes and views stay the defaults: another one is another kernel.
CONFIGS: dict[str, list[dict[str, Any]]] = {
    "maze": [
        {"slip": 0.0},
        {"slip": 0.3, "step_reward": -0.1},
        {"layout": "open", "slip": 0.1},
        {"layout": "frozenlake4", "slip": 2 / 3},
        {"layout": "frozenlake8", "slip": 0.2, "hole_reward": -1.0, "step_reward": -0.01},
        {"layout": "S.H/.#G/G.H", "slip": 1.0, "hole_reward": -2.0},
        {"layout": "two-rooms", "slip": 0.5},
        {"fresh": False, "maze_seed": 3, "slip": 0.1, "time_limit": 0},
        {"layout": "S.I.v#/.I#II./K.D.I0/0II^<H/G..>.H", "slip": 0.2, "hole_ends": False, "hole_reward": -3.0},
        {"layout": "S.I.v#/.I#II./K.D.I0/0II^<H/G..>.H", "moves": "eight", "stay": True, "slip": 0.2},
        {"layout": "S1I#/K.D./K#DG/1III", "moves": "turn", "sticky": 0.3, "slip": 0.1, "stay": True},
        {"layout": "t-maze", "size": 3, "slip": 0.1, "hole_reward": -0.1},
        {"layout": "deep-sea", "size": 5, "moves": "fall", "slip": 0.2, "scramble": True, "move_cost": 0.1},
        {"layout": "wilson", "size": 7, "levels": 20, "held_out": 5, "split": "test", "sticky": 0.25},
        {"layout": "caves", "goal": "random", "start": "random", "fresh": False, "goal_ends": False, "stay": True},
        {"layout": "braided", "size": 9, "show_goal": False, "shaping": "manhattan", "slip": 0.1},
        {"layout": "two-rooms", "shaping": "distance", "shaping_gamma": 0.9, "slip": 0.1},
    ],
    "candy": [
        {"candies": 2, "slip": 0.0},
        {"candies": 5, "slip": 0.3, "values": (-1.0, 2.5, 5.0)},
        {"candies": 1, "slip": 1.0},
        {"candies": 9, "slip": 0.05},
        {"candies": 3, "regrowth": "iid", "grow_rate": 0.3, "slip": 0.2},
        {"candies": 3, "change": "switch", "change_rate": 0.3, "slip": 0.2},
        {"candies": 3, "change": "seasons", "period": 3, "slip": 0.0},
    ],
    "ipd-tit-for-tat": [
        {"opponents": ["grim"], "tremble": 0.3},
        {"opponents": ["random"], "game": "stag-hunt", "continuation": 0.7, "rounds": 0},
        {"opponents": ["pavlov"], "game": "chicken", "rounds": 1},
        {"opponents": ["pavlov", "random"], "game": "public-goods", "tremble": 0.1, "continuation": 0.9},
        {"opponents": ["copycat-beater"], "game": "rock-paper-scissors", "tremble": 0.2},
        {"opponents": ["best-response"], "payoff": [[[2, -1], [0, 1]], [[-3, 1], [4, 0]]]},
    ],
    "corridor": [
        {"length": 1, "choices": 4, "distractors": 3},
        {"task": "delay", "length": 3},
        {"task": "delay", "length": 1, "choices": 3},
        {"task": "delay", "length": 5, "distraction": 2.5, "reward_scale": 4.0, "reward_noise": 1.0},
        {"task": "match", "choices": 5, "length": 4, "reward_scale": 0.1},
    ],
}
CASES = [(name, options) for name in [*worlds(), *presets()] for options in [{}, *CONFIGS.get(name, [])]]


@functools.cache
def case(name: str, options: str) -> tuple[Model, Transitions] | None:
    world = make_world(name, json.loads(options))  # as text, options are a key of the cache
    one = Engine(world, num_envs=1, seed=7, threads=1)
    model = world.model(one.state, 0)
    return None if model is None else (model, run(world, one, model))


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{o}" for n, o in CASES])
def test_rules_and_model_are_the_same_world(name: str, options: dict[str, Any]) -> None:
    both = case(name, json.dumps(options))
    if both is None:
        assert name not in CONFIGS, "listed above as a world with an exact model"
        pytest.skip(f"{name} has no exact model")
    model, seen = both
    assert len(seen.state) >= REPEATS * model.next_state.shape[1]
    assert faults(model, seen) == []


def spoil(model: Model, how: str) -> Model:
    """The model with one mistake of the kind that a person makes."""
    p, to, r, end = (array.copy() for array in model_arrays(model))
    if how == "slip a little larger":
        p[:, :4] = p[:, :4] * [0.96, 1, 1] + np.array([0, 0.02, 0.02]) * p[:, :4, :1]
    elif how == "slips to one side only":
        p[:, :4] = np.stack((p[:, :4, 0], p[:, :4, 1] + p[:, :4, 2], 0 * p[:, :4, 0]), -1)
    elif how == "left and right swapped":
        to, p, r, end = (array[:, [2, 1, 0, *range(3, array.shape[1])]] for array in (to, p, r, end))
    elif how == "reward off by one per cent":
        r *= 1.01
    elif how == "never ends":
        end[:] = False
    return model._replace(probability=p, next_state=to, reward=r, terminated=end)


@pytest.mark.parametrize("name", ["maze", "candy"])
@pytest.mark.parametrize(
    "how",
    [
        "nothing",
        "slip a little larger",
        "slips to one side only",
        "left and right swapped",
        "reward off by one per cent",
        "never ends",
    ],
)
def test_a_wrong_model_is_found(name: str, how: str) -> None:
    both = case(name, json.dumps(CONFIGS[name][1]))
    assert both is not None
    wrong = faults(spoil(both[0], how), both[1])
    assert bool(wrong) == (how != "nothing")


@pytest.mark.parametrize(
    ("name", "options"),
    [("maze", {"layout": "frozenlake4", "slip": 2 / 3}), ("candy", {"candies": 4, "slip": 0.2, "time_limit": 10})],
)
def test_engine_returns_are_the_yardstick(name: str, options: dict[str, Any]) -> None:
    """Play whole episodes of one layout with the solver's policy, and at random: mean returns are the yardstick's."""
    episodes, rng = 4000, np.random.default_rng(3)
    world = make_world(name, options)
    one = Engine(world, num_envs=1, seed=1, threads=1)
    model, lines = world.model(one.state, 0), one.yardstick()
    assert model is not None and lines is not None
    limit, lookup = world.horizon, solve.StateIndex(model)
    policy = solve.finite_horizon(model, limit).policy
    for optimal, line in ((True, lines.optimal[0]), (False, lines.random[0])):
        batch = Engine(world, num_envs=episodes, seed=2, threads=1)
        arrays = batch.get_state()
        for key, row in one.get_state().items():
            if key.startswith("state."):
                arrays[key][:] = row
        batch.set_state(arrays)
        got, active = np.zeros(episodes), np.ones(episodes, np.bool_)
        for t in range(limit):
            action = rng.integers(policy.max() + 1, size=episodes)
            if optimal:
                action = policy[t][lookup(batch.state._asdict())]
            step = batch.step(action[:, None], active=active, autoreset=False)
            got += np.where(active, step.reward[:, 0], 0)
            active &= ~(step.terminated | step.truncated)
        assert not active.any()
        assert abs(got.mean() - line) < 4 * got.std() / math.sqrt(episodes)
