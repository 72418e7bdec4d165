"""Rules and exact model of each world are the same world: one engine step from known states, counted and compared."""

from __future__ import annotations

import functools
import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats

from gumdrop.envs import solve
from gumdrop.envs.core import Array, Model
from gumdrop.envs.engine import Engine
from gumdrop.envs.registry import make_world, worlds

STATES, REPEATS = 40, 600  # at most so many states of a model, and copies for each state and action
ALPHA = 1e-3  # chance that a whole configuration fails although rules and model agree; seeds are fixed

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
    ],
    "candy": [
        {"candies": 2, "slip": 0.0},
        {"candies": 5, "slip": 0.3, "values": (-1.0, 2.5, 5.0)},
        {"candies": 1, "slip": 1.0},
        {"candies": 9, "slip": 0.05},
    ],
}
CASES = [(name, options) for name in worlds() for options in [{}, *CONFIGS.get(name, [])]]


class Transitions(NamedTuple):
    """What REPEATS copies did in each (state, action): flat arrays (states * actions * REPEATS,)."""

    state: Array
    action: Array
    next_state: Array  # -1: not a state of the model
    reward: Array
    terminated: Array


@functools.cache
def case(name: str, options: str) -> tuple[Model, Transitions] | None:
    world = make_world(name, json.loads(options))  # as text, options are a key of the cache
    one = Engine(world, num_envs=1, seed=7, threads=1)
    model = world.model(one.state, 0)
    return None if model is None else (model, run(world, one, model))


def run(world: Any, one: Engine, model: Model) -> Transitions:
    """Put copies of `one` into sampled states of `model`, all actions in each, and step once."""
    solve.check_model(model)
    rng = np.random.default_rng(0)
    chosen = live = reachable(model)
    if len(live) > STATES:  # ends are rare in large models: make sure of some
        last = live[(model.terminated[live] & (model.probability[live] > 0)).any((1, 2))]
        last = rng.choice(last, min(len(last), STATES // 4), replace=False)
        chosen = np.unique(np.concatenate((last, rng.choice(live, STATES - len(last), replace=False), [model.start])))
    actions = model.next_state.shape[1]
    state = np.repeat(chosen, actions * REPEATS)
    action = np.tile(np.repeat(np.arange(actions), REPEATS), len(chosen))
    batch = Engine(world, num_envs=len(state), seed=11, threads=1)
    arrays = batch.get_state()
    for key, row in one.get_state().items():
        if key.startswith("state."):
            arrays[key][:] = row
    for field, rows in model.fields.items():
        arrays[f"state.{field}"][:] = rows[state]
    batch.set_state(arrays)
    lookup = solve.StateIndex(model)
    assert (lookup(batch.state._asdict()) == state).all(), "model.fields do not tell the states apart"
    step = batch.step(action[:, None], autoreset=False)
    after = lookup(batch.state._asdict())
    return Transitions(state, action, after, step.reward[:, 0].astype(np.float64), step.terminated.copy())


def reachable(model: Model) -> Array:
    """States that an episode can be in before it ends."""
    seen, border = {model.start}, [model.start]
    while border:
        s = border.pop()
        on = (model.probability[s] > 0) & ~model.terminated[s]
        new = set(model.next_state[s][on].tolist()) - seen
        seen |= new
        border += new
    return np.array(sorted(seen))


def faults(model: Model, seen: Transitions) -> list[str]:
    """Where the engine's outcomes are not the model's: impossible ones, wrong frequencies, wrong rewards."""
    found, tests, total, freedom = [], [], 0.0, 0
    groups = len(seen.state) // REPEATS
    for g in range(groups):
        rows = slice(g * REPEATS, (g + 1) * REPEATS)
        s, a = int(seen.state[rows][0]), int(seen.action[rows][0])
        place = f"state {s}, action {a}"
        expected: dict[int, list[tuple[float, float]]] = {}  # next state, or -2 for the end -> (probability, reward)
        for p, to, r, end in zip(*(array[s, a] for array in model_arrays(model)), strict=True):
            if p > 0:
                expected.setdefault(-2 if end else int(to), []).append((float(p), float(r)))
        outcome = np.where(seen.terminated[rows], -2, seen.next_state[rows])
        impossible = set(outcome.tolist()) - expected.keys()
        if impossible:
            found.append(f"{place}: the model excludes {sorted(impossible)}, it has {sorted(expected)}")
            continue
        observed, wanted, rest = [], [], [0.0, 0.0]
        for to, parts in expected.items():
            share = sum(p for p, _ in parts)
            count = int((outcome == to).sum())
            mean = sum(p * r for p, r in parts) / share
            variance = sum(p * (r - mean) ** 2 for p, r in parts) / share
            rewards = seen.reward[rows][outcome == to]
            if count and variance < 1e-12 and float(rewards.std()) < 1e-6:
                if abs(float(rewards.mean()) - mean) > 1e-5 * (1 + abs(mean)):
                    found.append(f"{place} to {to}: reward {rewards.mean():g}, in the model {mean:g}")
            elif count:
                error = math.sqrt(max(variance, float(rewards.var())) / count)
                tests.append((2 * stats.norm.sf(abs(float(rewards.mean()) - mean) / error), f"{place} to {to}: reward"))
            if share * REPEATS < 5:  # too rare for the chi-square law: pooled
                rest = [rest[0] + count, rest[1] + share * REPEATS]
            else:
                observed.append(float(count))
                wanted.append(share * REPEATS)
        if rest[1]:
            observed.append(rest[0])
            wanted.append(rest[1])
        if len(observed) > 1:
            chi = float(((np.array(observed) - wanted) ** 2 / np.array(wanted)).sum())
            tests.append((stats.chi2.sf(chi, len(observed) - 1), f"{place}: {observed}, expected {wanted}"))
            total, freedom = total + chi, freedom + len(observed) - 1
    if freedom:  # a small error everywhere shows in the sum only
        tests.append((stats.chi2.sf(total, freedom), f"all together: chi-square {total:.0f} with {freedom} degrees"))
    return found + [f"{what} (p = {p:.1e})" for p, what in tests if p < ALPHA / len(tests)]


def model_arrays(model: Model) -> tuple[Array, Array, Array, Array]:
    return model.probability, model.next_state, model.reward, model.terminated


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
