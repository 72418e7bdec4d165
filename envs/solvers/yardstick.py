"""The yardstick of a world: exact random and optimal return, from its model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...store.arrays import Array
from ..world import Game, Model, World, Yardstick
from . import games, mdp
from .mdp import evaluate_policy, value_iteration

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
    """What can be solved of environment `i`: a decision process, or else a zero-sum game of two that ends."""
    model = world.model(state, i)
    if model is not None or world.num_agents != 2:
        return model
    game = world.game(state, i)
    return game if game is not None and world.horizon > 0 and games.is_zero_sum(game) else None


def yardstick(world: World, state: Any) -> Yardstick | None:
    """Exact return of random and optimal play for each environment of `state`, a State at the start of episodes.

    The world's own `yardstick` goes first; else each environment's `model` is solved, or its `game` where two players are
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
            choices = tables.legal if isinstance(tables, Model) else None
            for array in (*tables[:4], *([] if choices is None else [choices])):
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
    """Finds the model's state of a real environment, by the contents of `model.fields`."""

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
    """Which state of `model` environment `i` is in; `arrays`: name -> (N, ...), as a State's `_asdict()`.

    Raises ValueError where it is in none. For many look-ups in one model, keep a `StateIndex`.
    """
    found = int(StateIndex(model)({name: arrays[name][i : i + 1] for name in model.fields})[0])
    if found < 0:
        raise ValueError(f"environment {i} is in no state of this model: build the model from that environment's own episode")
    return found
