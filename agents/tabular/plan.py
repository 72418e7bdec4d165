"""Agents that are told the rules: they solve the world's exact model and look an observation up in the solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...envs.solvers.mdp import Solution
from ...envs.world import Model, World
from ...store.arrays import Array, check_arrays
from ..protocol import Spaces
from .table import UNKNOWN, Table, discrete

EPISODES = 8  # whose models are compared, to see whether the board is always the same


class StateObservations(NamedTuple):
    """What an agent sees in each state of a model."""

    model: Model
    start: Array  # int64 (K,): states in which episodes begin, of K resets
    obs: Array  # (S, *observation)
    state: Any  # the world's arrays of one copy, at the beginning of the model's episode


def see(world: World, seed: int = 0, resets: int = 64) -> StateObservations:
    """The model of the first episode with `seed`, and what its states look like.

    Raises ValueError, one line, where the world gives no model. `start` holds the beginnings of episodes whose states the
    model knows: all of them where the board is fixed.
    """
    from ...envs.engine.engine import Engine
    from ...envs.solvers.yardstick import StateIndex

    if world.num_agents != 1:
        raise ValueError(f"world {world.name} has {world.num_agents} agents: a model is one agent's")
    few = Engine(world, num_envs=resets, seed=seed, threads=1)
    model = world.model(few.state, 0)
    if model is None:
        raise ValueError(f"world {world.name} gives no exact model with these options: see `gumdrop env solve`")
    states = len(model.next_state)
    many = Engine(world, num_envs=states, seed=seed, threads=1)
    arrays, first = many.get_state(), few.get_state()
    for name, array in arrays.items():
        array[:] = first[name][0]
    for name, field in model.fields.items():
        arrays[f"state.{name}"][:] = field
    many.set_state(arrays)
    start = StateIndex(model)(few.state._asdict())
    one = type(few.state)(*(np.array(array[:1]) for array in few.state))
    return StateObservations(model, start[start >= 0], many.obs[:, 0].copy(), one)


def fixed(world: World, seed: int = 0) -> bool:
    """Whether several episodes have the same model."""
    from ...envs.engine.engine import Engine

    few = Engine(world, num_envs=EPISODES, seed=seed, threads=1)
    first = world.model(few.state, 0)
    for i in range(1, EPISODES):
        other = world.model(few.state, i)
        if first is None or other is None:
            return False
        if any(not np.array_equal(a, b) for a, b in zip(first[:4], other[:4], strict=True)):
            return False
        if any(not np.array_equal(first.fields[name], other.fields[name]) for name in first.fields):
            return False
    return True


def reachable(model: Model, start: Array) -> Array:
    """States that an episode can be in before it ends, int64, ascending."""
    on = (model.probability > 0) & ~model.terminated
    seen = np.zeros(len(on), np.bool_)
    front = np.unique(start)
    while len(front):
        seen[front] = True
        front = np.unique(model.next_state[front][on[front]])
        front = front[~seen[front]]
    return np.flatnonzero(seen)


class PlannedPolicy:
    """A solved world: an action for each observation that can come up. Raises ValueError where that is impossible."""

    def __init__(self, name: str, spaces: Spaces, solve: Callable[[Model], Solution]) -> None:
        discrete(name, spaces)
        self.name = name
        if spaces.world is None:
            raise ValueError(f"agent {name}: it is told the rules, and this environment is not ours: take q-learning")
        try:
            seen = see(spaces.world)
        except ValueError as error:
            raise ValueError(f"agent {name}: {error}; or take q-learning") from None
        if not fixed(spaces.world):
            raise ValueError(f"agent {name}: the world is another in each episode: fix its board, e.g. env.fresh=false")
        states = reachable(seen.model, seen.start)
        self._table = Table(state=(1, 0))
        rows = self._table.enter(seen.obs[states], 1)
        if self._table.count < len(states):
            raise ValueError(
                f"agent {name}: {len(states):,} states show only {self._table.count:,} observations: show it the state, "
                "e.g. env.observe=coordinates or env.view=0"
            )
        self._table["state"][rows, 0] = states
        self.model, self.solution = seen.model, solve(seen.model)

    def states(self, obs: Array) -> Array:
        """The model's states of observations (N, A, ...), int64 (N * A,)."""
        rows = self._table.find(obs)
        if (rows == UNKNOWN).any():
            raise ValueError(
                f"agent {self.name}: an observation came up that no state of the model shows: is it another world?"
            )
        states: Array = self._table["state"][rows, 0]
        return states

    def state(self) -> dict[str, Array]:
        return {"value": self.solution.value.copy(), "policy": self.solution.policy.copy()}

    def load(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state(), f"agent {self.name}")
        self.solution = Solution(state["value"].copy(), state["policy"].copy())
