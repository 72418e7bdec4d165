"""How tabular agents explore, how long their steps are, and the options that they share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ...store.random_state import generator_state, set_generator_state
from ..masks import only_legal
from ..protocol import AgentConfig, Mode
from .kernel import inner, kernel


class TabularConfig(AgentConfig):
    """Options of every agent that learns a table of action values."""

    num_steps: int = Field(16, ge=1, le=100_000, description="steps per environment between updates")
    gamma: float = Field(0.99, ge=0, le=1, description="discount factor per step")
    learning_rate: float = Field(0.5, gt=0, le=1, description="step size of a pair's first update")
    visit_decay: float = Field(0.5, ge=0, le=1, description="omega: the n-th update's is learning_rate / n^omega; 0: constant")
    initial_value: float = Field(0.0, ge=-1e9, le=1e9, description="of all action values; above what is to be got: optimism")
    exploration: Literal["epsilon", "softmax"] = Field("epsilon", description="what is done to explore")
    epsilon: float = Field(0.1, ge=0, le=1, description="probability of a uniformly random action")
    epsilon_final: float | None = Field(None, ge=0, le=1, description="epsilon at the end, reached linearly; null: constant")
    temperature: float = Field(0.1, gt=0, le=1e6, description="of softmax")
    temperature_final: float | None = Field(None, gt=0, le=1e6, description="at the end, reached geometrically")


class OpponentConfig(TabularConfig):
    """With the option to model another player."""

    opponent: bool | None = Field(
        None, description="others' last actions: true: part of a state, false: taken out; null: as the world shows them"
    )


class BehaviourPolicy:
    """The policy that collects: epsilon-greedy with ties broken at random, or softmax; greedy where that is asked for.

    All randomness of a tabular agent comes from `rng`.
    """

    def __init__(self, config: TabularConfig, seed: int) -> None:
        self.config = config
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.advance(0.0)

    def advance(self, progress: float) -> None:
        """Set epsilon and temperature for what share of the budget is spent."""
        o = self.config
        end = o.epsilon if o.epsilon_final is None else o.epsilon_final
        self.epsilon = o.epsilon + (end - o.epsilon) * progress
        last = o.temperature if o.temperature_final is None else o.temperature_final
        warm = o.temperature ** (1 - progress) * last**progress
        self.temperature = warm if o.exploration == "softmax" else 0.0

    def explored(self, progress: float) -> float:
        """The epsilon that the last rollout was collected with; then `advance`."""
        epsilon = self.epsilon
        self.advance(progress)
        return epsilon

    def act(self, values: Array, lead: tuple[int, ...], mode: Mode, mask: Array | None = None) -> Array:
        """Legal actions for action values (B, actions), int64 of shape `lead`; `mask` (*lead, actions), or None."""
        values = only_legal(values, mask)
        if mode == "greedy":
            best: Array = values.argmax(1).reshape(lead)
            return best
        out = np.empty(len(values), np.int64)
        choose(values, self.epsilon, self.temperature, self.rng.random((len(values), 2)), out)
        return out.reshape(lead)

    def state(self) -> dict[str, Array]:
        return {"rng": generator_state(self.rng), "explore": np.array([self.epsilon, self.temperature])}

    def load(self, state: dict[str, Array]) -> None:
        set_generator_state(self.rng, state["rng"])
        self.epsilon, self.temperature = state["explore"].tolist()


@kernel
def choose(values: Array, epsilon: float, temperature: float, draws: Array, out: Array) -> None:
    """An action for each row of `values` (B, A) by two uniform numbers each, `draws` (B, 2); a value of -inf: it is illegal."""
    actions = values.shape[1]
    for b in range(values.shape[0]):
        best, legal = values[b, 0], 0
        for a in range(actions):
            best = max(best, values[b, a])
            legal += values[b, a] > -np.inf
        chosen = 0
        if temperature > 0.0:
            # pi(a) = exp(Q(a) / tau) / sum_b exp(Q(b) / tau)
            total = 0.0
            for a in range(actions):
                total += np.exp((values[b, a] - best) / temperature)
            left = draws[b, 0] * total
            for a in range(actions):
                if values[b, a] == -np.inf:
                    continue
                left -= np.exp((values[b, a] - best) / temperature)
                chosen = a
                if left < 0.0:
                    break
        elif draws[b, 0] < epsilon:
            skip = int(draws[b, 1] * legal)
            for a in range(actions):
                if values[b, a] > -np.inf:
                    chosen = a
                    if skip == 0:
                        break
                    skip -= 1
        else:
            ties = 0
            for a in range(actions):
                ties += values[b, a] == best
            skip = int(draws[b, 1] * ties)
            for a in range(actions):
                if values[b, a] == best:
                    chosen = a
                    if skip == 0:
                        break
                    skip -= 1
        out[b] = chosen


@inner
def step_size(visits: Array, s: int, a: int, learning_rate: float, omega: float) -> Any:
    """alpha_n = alpha / n^omega, with n the updates of (s, a), this one included: it is counted."""
    visits[s, a] += 1
    return learning_rate if omega == 0.0 else learning_rate / np.float64(visits[s, a]) ** omega


@inner
def highest(q: Array, s: int) -> Any:
    """max_a Q(s, a); 0 after termination (s < 0). Illegal actions have Q = -inf (`Table.moves`)."""
    if s < 0:
        return 0.0
    best = q[s, 0]
    for a in range(1, q.shape[1]):
        best = max(best, q[s, a])
    return best


@inner
def expected(q: Array, s: int, epsilon: float, temperature: float) -> Any:
    """sum_a pi(a | s) Q(s, a) under the policy that `choose` follows, over legal actions; 0 after termination (s < 0)."""
    if s < 0:
        return 0.0
    actions = q.shape[1]
    best = highest(q, s)
    weighed, total = 0.0, 0.0
    if temperature > 0.0:
        for a in range(actions):
            if q[s, a] > -np.inf:
                p = np.exp((q[s, a] - best) / temperature)
                weighed += p * q[s, a]
                total += p
        return weighed / total
    legal = 0
    for a in range(actions):
        if q[s, a] > -np.inf:
            weighed += q[s, a]
            legal += 1
    return (1.0 - epsilon) * best + epsilon * (weighed / legal)
