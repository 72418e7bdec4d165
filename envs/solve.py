"""Worlds solved exactly: what random actions get and what is provably best, for every world small enough.

A world gives its tables (`World.model`, `World.game`) or an own yardstick; `mdp.py` and `games.py` solve the tables,
`bayes.py` bandits with unknown arms, `search.py` goals that nobody sees. The algorithms for decision processes are
importable from here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import games, mdp, portrait
from .core import Array, Game, Model, World, Yardstick
from .mdp import (
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
from .packing import plain
from .rng import copy_seeds, fresh_streams

__all__ = [
    "MEANING", "MEANING_GAME", "SWEEPS", "Solution", "Solved", "StateIndex", "check_model", "evaluate_policy", "examine",
    "fewest_steps", "finite_horizon", "from_table", "index_of", "occupancy", "policy_iteration", "solve_world",
    "value_iteration", "yardstick",
]  # fmt: skip

MEANING = "optimum of an agent that sees the whole state"
MEANING_GAME = "player 0's minimax value: both players at their best; random: both at random"
MEMORY = 10_000_000  # states whose values `yardstick` keeps for the next copy: 160 MB


def _both(model: Model, horizon: int) -> tuple[Array, Array]:
    """Return of random and of optimal actions from each state, (S,) each; horizon 0: no time limit."""
    if horizon == 0:
        return evaluate_policy(model), value_iteration(model).value
    flat = mdp.flatten(model)
    lazy = best = np.zeros(flat.reward.shape[1])
    move, reward, _ = mdp.chain(flat, None)
    for _ in range(horizon):
        before = lazy, best
        lazy = reward + move @ lazy
        best = mdp.backup(flat, best).max(0)
        if max(np.abs(lazy - before[0]).max(), np.abs(best - before[1]).max()) == 0.0:  # a longer limit changes nothing
            break
    return lazy, best


def _tables(world: World, state: Any, i: int) -> Model | Game | None:
    """What can be solved of copy `i`: a decision process, or else a zero-sum game of two that ends."""
    model = world.model(state, i)
    if model is not None or world.num_agents != 2:
        return model
    game = world.game(state, i)
    return game if game is not None and world.horizon > 0 and games.is_zero_sum(game) else None


def yardstick(world: World, state: Any) -> Yardstick | None:
    """Exact return of random and optimal play for each copy of `state`, a State at the start of episodes.

    The world's own `yardstick` goes first; else each copy's `model` is solved, or its `game` where two players are
    opposed (then the figures are player 0's), equal ones once; else None.
    """
    own = world.yardstick(state)
    if own is not None:
        return own
    n = len(state[0])
    flat = np.concatenate([np.ascontiguousarray(a).reshape(n, -1).view(np.uint8) for a in state], axis=1)
    solved: dict[bytes, tuple[Array, Array]] = {}
    seen: dict[bytes, tuple[float, float]] = {}
    random, optimal = np.zeros(n), np.zeros(n)
    room, meaning, player = MEMORY, MEANING, -1
    for i in range(n):
        row = flat[i].tobytes()
        if row not in seen:
            tables = _tables(world, state, i)
            if tables is None:
                return None
            digest = hashlib.blake2b(repr(tables.next_state.shape).encode())
            for array in tables[:4]:
                digest.update(np.ascontiguousarray(array).data)
            key = digest.digest()
            if key not in solved:
                room -= len(tables.next_state)
                if room < 0:
                    solved.clear()
                    room = MEMORY
                if isinstance(tables, Game):
                    meaning, player = MEANING_GAME, 0
                    solved[key] = games.minimax(tables, world.horizon)[:2]
                else:
                    solved[key] = _both(tables, world.horizon)
            seen[row] = float(solved[key][0][tables.start]), float(solved[key][1][tables.start])
        random[i], optimal[i] = seen[row]
    return Yardstick(random, optimal, meaning, player)


class StateIndex:
    """Finds the model's state of a real copy, by the contents of `model.fields`."""

    def __init__(self, model: Model) -> None:
        self._dtypes = {name: field.dtype for name, field in model.fields.items()}
        keys = self._pack(model.fields)
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def _pack(self, arrays: Mapping[str, Array]) -> Array:
        parts = []
        for name, dtype in self._dtypes.items():
            array = np.ascontiguousarray(arrays[name], dtype)
            parts.append(array.reshape(len(array), -1).view(np.uint8))
        packed = np.ascontiguousarray(np.concatenate(parts, axis=1))
        return packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]

    def __call__(self, arrays: Mapping[str, Array]) -> Array:
        """`arrays`: name -> (N, ...) for at least the model's fields. State numbers, int64 (N,); -1: none."""
        keys = self._pack(arrays)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._order[at], -1)


def index_of(model: Model, arrays: Mapping[str, Array], i: int) -> int:
    """Which state of `model` copy `i` is in; `arrays`: name -> (N, ...), as a State's `_asdict()`.

    Raises ValueError where it is in none. For many look-ups in one model, keep a `StateIndex`.
    """
    found = int(StateIndex(model)({name: arrays[name][i : i + 1] for name in model.fields})[0])
    if found < 0:
        raise ValueError(f"copy {i} is in no state of this model: build the model from that copy's own episode")
    return found


class Solved(NamedTuple):
    """A solved environment: plain figures, and a picture of them where there is one to draw."""

    document: dict[str, Any]  # plain numbers, lists and text, ready for JSON: what `solve_world` returns
    picture: portrait.Map | portrait.Rows | None


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
    """`solve_world`, with what `portrait.save` draws."""
    from .registry import is_foreign, make_world

    mdp.check_gamma(gamma)
    if is_foreign(id):
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
    picture = portrait.map_of(world, state, model, solution, q) or portrait.rows_of(model, solution)
    return Solved(known | _values(solution, portrait.text(picture)), picture)


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
    picture = portrait.rows_of(games.joint(game), Solution(value, row))
    return Solved(known | {"strategies": players} | _values(Solution(value, row), text), picture)


def _examine_table(id: str, options: dict[str, Any] | None, gamma: float, progress: Progress | None) -> Solved:
    """Gymnasium's toy-text environments, from their own tables and distribution of first states."""
    import gymnasium

    refusal = f"{id} is a foreign environment without an exact model: solve takes gumdrop's own worlds"
    if ":" in id or id not in gymnasium.registry:
        raise ValueError(refusal)
    spec = gymnasium.spec(id)
    if "toy_text" not in str(spec.entry_point):
        raise ValueError(refusal)
    from .foreign import own_options

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
    picture = portrait.rows_of(model, solution)
    return Solved(known | _values(solution, portrait.text(picture)), picture)
