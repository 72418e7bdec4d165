"""Worlds solved exactly: what random actions get and what is provably best, for every world small enough.

A world gives its tables (`World.model`, `World.game`) or an own yardstick; `mdp.py` and `games.py` solve the tables,
`bayes.py` bandits with unknown arms, `search.py` goals that nobody sees. The algorithms for decision processes are
importable from here too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...store.arrays import Array
from ..constants import plain
from ..rng import copy_seeds, fresh_streams
from ..solvers import games, mdp
from ..solvers.mdp import (
    SWEEPS,
    Progress,
    Solution,
    check_model,
    evaluate_policy,
    fewest_steps,
    finite_horizon,
    from_table,
    occupancy,
    policy_iteration,
    value_iteration,
)
from ..solvers.yardstick import MEANING, MEANING_GAME, StateIndex, index_of, yardstick
from ..world import Game, Model
from . import value_map as value_map

__all__ = [
    "MEANING", "MEANING_GAME", "SWEEPS", "Solution", "Solved", "StateIndex", "check_model", "evaluate_policy", "examine",
    "fewest_steps", "finite_horizon", "from_table", "index_of", "occupancy", "policy_iteration", "solve_world",
    "value_iteration", "yardstick",
]  # fmt: skip


class Solved(NamedTuple):
    """A solved environment: plain figures, and a picture of them where there is one to draw."""

    document: dict[str, Any]  # plain numbers, lists and text, ready for JSON: what `solve_world` returns
    picture: value_map.Map | value_map.StateTable | None


def solve_world(
    id: str, options: dict[str, Any] | None = None, seed: int = 0, gamma: float = 1.0, progress: Progress | None = None
) -> dict[str, Any]:
    """Solve the first episode of world `id` with `seed`: plain numbers, lists and text, ready for JSON.

    "id", "random", "optimal", "meaning", "states", "actions", "horizon" (0: none), "value" (optimal return
    from each state at the start of an episode), "text" (the best first action on each cell, where states have
    rows and columns; else a table of the first states). Two opposed players: the figures are player 0's, "strategies"
    are both players' for the first step. gamma < 1: discounted returns without a time limit. Of Gymnasium's environments
    those with a table `P` (toy text) are solved too. ValueError: nothing here can be solved.
    """
    return examine(id, options, seed, gamma, progress).document


def examine(
    id: str, options: dict[str, Any] | None = None, seed: int = 0, gamma: float = 1.0, progress: Progress | None = None
) -> Solved:
    """`solve_world`, with what `value_map.save` draws."""
    from ..names import is_external
    from ..registry import make_world

    mdp.check_gamma(gamma)
    if is_external(id):
        return _examine_table(id, options, gamma, progress)
    world = make_world(id, options)
    state = world.allocate(1)
    with np.errstate(over="ignore"):  # the rules in plain Python: nothing is compiled for one reset
        type(world).reset(state, 0, plain(world.constants()), fresh_streams(copy_seeds(seed, 1)))
    horizon = int(world.horizon)
    if gamma < 1:  # the time limit does not count then; an end that the rules make does
        horizon = int(type(world)(world.config.model_copy(update={"time_limit": 0})).horizon)
    actions = int(getattr(world.action_space, "n", 0)) or None
    known: dict[str, Any] = {"id": id, "horizon": horizon, "actions": actions} | ({"gamma": gamma} if gamma < 1 else {})
    own = world.yardstick(state) if gamma == 1 else None
    if own is not None:
        known |= {"random": float(own.random[0]), "optimal": float(own.optimal[0]), "meaning": own.meaning}
    model = world.model(state, 0)
    if model is None:
        game = world.game(state, 0) if world.num_agents == 2 else None
        if game is not None and (own is None or games.is_zero_sum(game)) and (horizon or gamma < 1):
            return _examine_game(known, game, horizon, gamma, progress)
        if own is None:
            if gamma < 1 and world.yardstick(state) is not None:
                raise ValueError(
                    f"world {id} has a yardstick but no transition model that could be discounted: leave gamma at 1"
                )
            way = "agents=1" if world.num_agents > 1 else "a smaller world (see its options with `gumdrop env show`)"
            raise ValueError(f"world {id} has no exact solver with these options: it would with {way}")
        return Solved(known | {"states": None, "value": None, "text": ""}, None)
    solution, q, random = _solve(model, horizon, gamma, own is None, progress)
    if own is None:
        known |= {"random": float(random[model.start]), "optimal": float(solution.value[model.start])}
        known["meaning"] = _discounted(MEANING, gamma)
    picture = value_map.map_of(world, state, model, solution, q) or value_map.rows_of(model, solution)
    return Solved(known | _values(solution, value_map.text(picture)), picture)


def _discounted(meaning: str, gamma: float) -> str:
    return meaning if gamma == 1 else f"{meaning}; discounted by {gamma:g} a step, without a time limit"


def _values(solution: Solution, text: str) -> dict[str, Any]:
    return {"states": len(solution.value), "value": solution.value.tolist(), "text": text}


def _solve(model: Model, horizon: int, gamma: float, random: bool, progress: Progress | None) -> tuple[Solution, Array, Array]:
    """Values and greedy policy of the first step (S,), its action values (A, S), and returns of random actions (S,)."""
    check_model(model)
    if horizon:
        solution, q = mdp.first_step(model, horizon, gamma, progress)
    else:
        solution = value_iteration(model, gamma, progress=progress)
        q = mdp.backup(mdp.flatten(model), solution.value, gamma)
    lazy = evaluate_policy(model, None, horizon or None, gamma) if random else np.zeros(len(solution.value))
    return solution, q, lazy


def _examine_game(known: dict[str, Any], game: Game, horizon: int, gamma: float, progress: Progress | None) -> Solved:
    games.check_game(game)
    if gamma < 1:
        value, row, column = games.shapley(game, horizon or None, gamma, progress=progress)
        if horizon:
            value, row, column = value[0], row[0], column[0]
        random = evaluate_policy(games.joint(game), None, horizon or None, gamma)
    else:
        random, value, row, column = games.minimax(game, horizon, progress)
    start = game.start
    known = {
        "random": float(random[start]),
        "optimal": float(value[start]),
        "meaning": _discounted(MEANING_GAME, gamma),
    } | known
    players = [row[start].tolist(), column[start].tolist()]
    text = "\n".join(
        f"player {k}, first step: " + "  ".join(f"{a}: {p:.3f}" for a, p in enumerate(strategy) if p > 5e-4)
        for k, strategy in enumerate(players)
    )
    picture = value_map.rows_of(games.joint(game), Solution(value, row))
    return Solved(known | {"strategies": players} | _values(Solution(value, row), text), picture)


def _examine_table(id: str, options: dict[str, Any] | None, gamma: float, progress: Progress | None) -> Solved:
    """Gymnasium's toy-text environments, from their own tables and distribution of first states."""
    import gymnasium

    refusal = f"{id} is an external environment without an exact model: solve takes gumdrop's own worlds"
    if ":" in id or id not in gymnasium.registry:
        raise ValueError(refusal)
    spec = gymnasium.spec(id)
    if "toy_text" not in str(spec.entry_point):
        raise ValueError(refusal)
    from ..external.make import own_options

    env: Any = gymnasium.make(id, **own_options(id, options or {})[0])
    limit = int(env.spec.max_episode_steps or 0)
    table, first = getattr(env.unwrapped, "P", None), getattr(env.unwrapped, "initial_state_distrib", None)
    env.close()
    if table is None or first is None:
        raise ValueError(refusal)
    model = from_table(table, int(np.argmax(first)))
    horizon = limit if gamma == 1 else 0
    solution, _, random = _solve(model, horizon, gamma, True, progress)
    share = np.asarray(first, np.float64)
    known = {"id": id, "horizon": horizon, "actions": model.next_state.shape[1]} | ({"gamma": gamma} if gamma < 1 else {})
    known |= {"random": float(share @ random), "optimal": float(share @ solution.value), "meaning": _discounted(MEANING, gamma)}
    picture = value_map.rows_of(model, solution)
    return Solved(known | _values(solution, value_map.text(picture)), picture)
