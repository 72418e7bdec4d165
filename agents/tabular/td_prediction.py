"""The value of a fixed policy: TD(0), TD(lambda) and Monte-Carlo prediction (Sutton & Barto 2018, chapters 5, 6 and 12)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ...store.arrays import Array, check_growing
from ...store.random_state import generator_state, set_generator_state
from ..protocol import AgentConfig, Carry, Mode, Rollout, Spaces
from ..registry import agent
from .acting import configured_steps, no_carry
from .kernel import kernel
from .monte_carlo import sweep as sweep_episodes
from .table import Table, discrete
from .traces import Held, credit


@agent("td-prediction")
class TDPrediction:
    """State values of a policy that stays as it is: all actions alike, or with given probabilities. It controls nothing."""

    masks: ClassVar[bool] = True

    class Config(AgentConfig):
        method: Literal["td", "monte-carlo"] = Field("td", description="bootstrap, or take the returns of whole episodes")
        policy: tuple[float, ...] | None = Field(None, description="probability of each action in every state; null: uniform")
        num_steps: int = Field(16, ge=1, le=100_000, description="steps per environment between updates")
        gamma: float = Field(0.99, ge=0, le=1, description="discount factor per step")
        learning_rate: float = Field(1.0, gt=0, le=1, description="step size of a state's first update")
        visit_decay: float = Field(0.8, ge=0, le=1, description="omega: the n-th update's is learning_rate / n^omega")
        initial_value: float = Field(0.0, ge=-1e9, le=1e9, description="of all states")
        trace_lambda: float = Field(0.0, ge=0, le=1, description="lambda of the eligibility traces, with method=td; 0: none")
        trace: Literal["accumulating", "replacing"] = Field("accumulating", description="what a second visit does to a trace")
        visit: Literal["first", "every"] = Field("first", description="which visits of an episode count, with monte-carlo")

        @field_validator("policy")
        @classmethod
        def _distribution(cls, policy: tuple[float, ...] | None) -> Any:
            if policy is not None and (min(policy, default=-1.0) < 0 or abs(sum(policy) - 1) > 1e-9):
                raise ValueError("policy must be probabilities that sum to 1, one for each action")
            return policy

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("td-prediction", spaces)
        if config.policy is not None and len(config.policy) != actions:
            raise ValueError(f"agent td-prediction: policy has {len(config.policy)} probabilities, the world {actions} actions")
        self.config, self.actions = config, actions
        self.table = Table(v=(1, config.initial_value), visits=(1, 0), seen=(1, 0))
        self.held = Held()  # running episodes, or eligibilities
        self.rng = np.random.Generator(np.random.PCG64(seed))

    num_steps, initial = property(configured_steps), no_carry

    def values(self, obs: Array) -> Array:
        """State values of observations (N, A, ...), float64 (N * A, 1)."""
        return self.table.values("v", obs, self.config.initial_value)

    def act(self, obs: Array, carry: Carry, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        if mask is None:
            return self.rng.choice(self.actions, size=obs.shape[:2], p=self.config.policy), carry, {}
        share = mask * np.asarray(self.config.policy or [1.0] * self.actions)  # (N, A, actions), given that it is legal
        if not share.any(-1).all():
            raise ValueError("agent td-prediction: policy has probability 0 for all legal actions of a state")
        cumulative = share.cumsum(-1)
        u = self.rng.random((*obs.shape[:2], 1)) * cumulative[..., -1:]
        return (cumulative <= u).sum(-1), carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move, held = self.config, self.table.moves(batch, ()), self.held
        move = move._replace(action=np.zeros_like(move.action))  # a value has one column
        held.reserve(move.row.shape[1], len(move.row) + 1)
        memory = held.length, held.row, held.action, held.number
        rates = o.learning_rate, o.visit_decay, o.gamma
        v, visits = self.table["v"], self.table["visits"]
        if o.method == "monte-carlo":
            error, updates = sweep_episodes(v, visits, self.table["seen"], *move, *memory, *rates, 0.0, 0.0, o.visit == "first")
            return {"return_error": error / max(updates, 1), "states": float(self.table.count)}
        error = sweep(
            v, visits, move.row, move.reward, move.next, move.ended, *memory, *rates, o.trace_lambda, o.trace == "replacing"
        )
        return {"td_error": error / move.row.size, "states": float(self.table.count)}

    def state_dict(self) -> dict[str, Array]:
        return self.table.state() | self.held.state() | {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_growing(state, self.state_dict(), "agent td-prediction")
        self.table.load(state)
        self.held.load(state, self.table.count, 1)
        set_generator_state(self.rng, state["rng"])


@kernel
def sweep(
    v: Array, visits: Array, row: Array, reward: Array, after: Array, ended: Array,
    length: Array, held_row: Array, held_action: Array, eligibility: Array,
    learning_rate: float, omega: float, gamma: float, trace_lambda: float, replacing: bool,
) -> float:  # fmt: skip
    """All steps in the order of time. Returns the sum of |delta|."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, after_s = row[t, b], after[t, b]
            # delta = R + gamma V(S') - V(S);  V <- V + alpha delta E
            delta = reward[t, b] + gamma * (v[after_s, 0] if after_s >= 0 else 0.0) - v[s, 0]
            credit(
                v, visits, length, held_row, held_action, eligibility, b, s, 0,
                replacing, delta, gamma * trace_lambda, learning_rate, omega,
            )  # fmt: skip
            total += abs(delta)
            if ended[t, b]:
                length[b] = 0
    return total
