"""Methods that tabular agents share, as plain functions: a class takes them by name, `act = act_by_values`.

They ask for the parts that such an agent has: `config`, a `table` with the column "q" and the `behaviour` that acts by it.
"""

from __future__ import annotations

from typing import Any

from ...store.arrays import Array, check_growing
from ..protocol import Carry, Mode, Rollout


def configured_steps(self: Any) -> int:
    """Steps to collect before each `learn`: the option `num_steps`."""
    return int(self.config.num_steps)


def no_carry(self: Any, n: int) -> None:
    """No memory."""


def table_values(self: Any, obs: Array) -> Array:
    """Action values of observations (N, A, ...), float64 (N * A, actions)."""
    values: Array = self.table.values("q", obs, self.config.initial_value)
    return values


def act_by_values(
    self: Any, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None
) -> tuple[Array, Carry, dict[str, Array]]:
    """Act by `self.values` as `self.behaviour` does; see `protocol.Agent.act`."""
    return self.behaviour.act(self.values(obs), obs.shape[:2], mode, mask), carry, {}


def table_state(self: Any) -> dict[str, Array]:
    """The table, and the behaviour's random state and schedules."""
    state: dict[str, Array] = self.table.state() | self.behaviour.state()
    return state


def load_table_state(self: Any, state: dict[str, Array]) -> None:
    """Put back what `table_state` gave. Raises ValueError where it is another agent's."""
    check_growing(state, self.state_dict(), f"agent {self.name}")
    self.table.load(state)
    self.behaviour.load(state)


# ---- of agents that are told the rules and have a `plan` ----


def act_by_plan(
    self: Any, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None
) -> tuple[Array, Carry, dict[str, Array]]:
    """The planned policy's actions; it is deterministic in both modes, and legal where the world has masks."""
    return self.plan.solution.policy[self.plan.states(obs)].reshape(obs.shape[:2]), carry, {}


def learn_nothing(self: Any, batch: Rollout, progress: float) -> dict[str, float]:
    """It has planned when it was made."""
    return {}


def plan_state(self: Any) -> dict[str, Array]:
    """Values and policy of the plan."""
    state: dict[str, Array] = self.plan.state()
    return state


def load_plan(self: Any, state: dict[str, Array]) -> None:
    """Put back what `plan_state` gave. Raises ValueError where it is another world's."""
    self.plan.load(state)
