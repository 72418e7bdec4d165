"""Double Q-learning (van Hasselt 2010; Sutton & Barto 2018, section 6.7)."""

from __future__ import annotations

from typing import ClassVar

from ...store.arrays import Array
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, load_table_state, no_carry, table_state
from .behaviour import BehaviourPolicy, TabularConfig, step_size
from .kernel import inner, kernel
from .table import Table, discrete


@agent("double-q")
class DoubleQ:
    """Q-learning with two tables: one names the best action, the other says what it is worth. It acts by their mean."""

    masks: ClassVar[bool] = True

    Config = TabularConfig

    def __init__(self, config: TabularConfig, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("double-q", spaces)
        self.config = config
        value = config.initial_value
        self.table = Table(q=(actions, value), q2=(actions, value), visits=(actions, 0), visits2=(actions, 0))
        self.behaviour = BehaviourPolicy(config, seed)

    num_steps, initial, act = property(configured_steps), no_carry, act_by_values

    def values(self, obs: Array) -> Array:
        """Action values of observations (N, A, ...), the mean of both tables, float64 (N * A, actions)."""
        value = self.config.initial_value
        return (self.table.values("q", obs, value) + self.table.values("q2", obs, value)) / 2

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move, table = self.config, self.table.moves(batch, ("q", "q2")), self.table
        coins = self.behaviour.rng.random(move.row.shape)
        error = sweep(
            table["q"], table["q2"], table["visits"], table["visits2"], move.row, move.action, move.reward, move.next, coins,
            o.learning_rate, o.visit_decay, o.gamma,
        )  # fmt: skip
        epsilon = self.behaviour.explored(progress)
        return {"td_error": error / move.row.size, "states": float(table.count), "epsilon": epsilon}

    state_dict, load_state_dict = table_state, load_table_state


@inner
def valued(chooser: Array, judge: Array, s: int) -> float:
    """judge(s, argmax_a chooser(s, a)); 0 after termination (s < 0)."""
    if s < 0:
        return 0.0
    best = 0
    for a in range(1, chooser.shape[1]):
        if chooser[s, a] > chooser[s, best]:
            best = a
    return float(judge[s, best])


@kernel
def sweep(
    q: Array, q2: Array, visits: Array, visits2: Array, row: Array, action: Array, reward: Array, after: Array, coins: Array,
    learning_rate: float, omega: float, gamma: float,
) -> float:  # fmt: skip
    """All steps in the order of time, `coins` (T, B) below 1/2 for the first table. Returns the sum of |delta|."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            if coins[t, b] < 0.5:
                # Q1(S, A) <- Q1(S, A) + alpha [R + gamma Q2(S', argmax_a Q1(S', a)) - Q1(S, A)]
                delta = reward[t, b] + gamma * valued(q, q2, after[t, b]) - q[s, a]
                q[s, a] += step_size(visits, s, a, learning_rate, omega) * delta
            else:
                delta = reward[t, b] + gamma * valued(q2, q, after[t, b]) - q2[s, a]
                q2[s, a] += step_size(visits2, s, a, learning_rate, omega) * delta
            total += abs(delta)
    return total
