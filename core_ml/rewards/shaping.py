"""Potential-based shaping (Ng, Harada & Russell 1999, "Policy invariance under reward transformations", theorem 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import Field

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig, component
from ..observations import BonusInputs

Potential = Callable[[Array], Any]  # observations (B, *shape) -> (B,)
Nested = tuple[float, ...] | tuple[tuple[float, ...], ...] | tuple[tuple[tuple[float, ...], ...], ...]


@component("bonus", "shaping")
class Shaping:
    """F(s, a, s') = gamma Phi(s') - Phi(s), which changes no optimal policy; Phi of a terminal state is 0.

    A truncated episode has not come to its end: there Phi(s') is that of its last observation. `gamma` is the agent's.

    Phi is a function or a network that is handed in (`potential`), which keeps its own state; or a `table`, Phi(s) =
    table[s_1][s_2]... of observations of whole numbers, such as a maze's coordinates; or linear, Phi(s) = weights . s.
    There is nothing to learn: never updated it is the same.
    """

    class Config(ComponentConfig):
        gamma: float | None = Field(None, ge=0, le=1, description="the agent's discount, unless told")
        table: Nested = Field((), description="potentials by the observation's whole numbers, nested lists")
        weights: tuple[float, ...] = Field((), description="of a linear potential, one for each of an observation's numbers")

    def __init__(self, config: Config, facts: BonusInputs, seed: int = 0, potential: Potential | None = None) -> None:
        self.config, self.shape = config, facts.observation.shape
        self.gamma = facts.gamma if config.gamma is None else config.gamma
        if (potential is not None) + bool(config.table) + bool(config.weights) != 1:
            raise ValueError("shaping wants one potential: a table, weights or, from Python, a function")
        try:
            self.table = np.array(config.table, np.float64)
        except ValueError:
            raise ValueError("shaping: the rows of table have different lengths") from None
        self.weights = np.array(config.weights, np.float64)
        size = int(np.prod(self.shape))
        if config.table and self.table.ndim != size:
            raise ValueError(f"shaping: an observation has {size} numbers, table has {self.table.ndim} levels of lists")
        if config.weights and len(self.weights) != size:
            raise ValueError(f"shaping: an observation has {size} numbers, weights are {len(self.weights)}")
        self.potential = potential or (self._listed if config.table else self._linear)

    def bonus(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> Array:
        """obs and next_obs (..., *shape), terminated bool (...) -> float32 (...); the action does not matter."""
        on = ~terminated
        shaped = -self._phi(obs)
        if on.any():  # what stands in `next_obs` where an episode terminated means nothing, and may be no place at all
            shaped[on] += self.gamma * self._phi(next_obs[on])
        return np.asarray(shaped, np.float32)

    def update(self, obs: Array, action: Array, next_obs: Array, terminated: Array) -> dict[str, float]:
        """Nothing."""
        return {}

    def _phi(self, obs: Array) -> Array:
        """(..., *shape) -> float64 (...)."""
        lead = obs.shape[: obs.ndim - len(self.shape)]
        return np.array(self.potential(obs.reshape(-1, *self.shape)), np.float64).reshape(lead)

    def _listed(self, obs: Array) -> Array:
        at = obs.reshape(len(obs), -1)
        if not np.issubdtype(at.dtype, np.integer):
            raise ValueError(f"shaping: a table is for observations of whole numbers, these are {at.dtype}: take weights")
        low, high = at.min(0, initial=0), at.max(0, initial=0)
        if low.min() < 0 or (high >= self.table.shape).any():
            raise ValueError(f"shaping: observations reach from {low.tolist()} to {high.tolist()}, table is {self.table.shape}")
        found: Array = self.table[tuple(at.T)]
        return found

    def _linear(self, obs: Array) -> Array:
        found: Array = obs.reshape(len(obs), -1) @ self.weights
        return found

    def state_dict(self) -> dict[str, Array]:
        return {"table": self.table.copy(), "weights": self.weights.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "reward shaping")
        self.table[...], self.weights[...] = state["table"], state["weights"]
