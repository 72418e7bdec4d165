"""Expected SARSA (van Seijen et al. 2009; Sutton & Barto 2018, section 6.6)."""

from __future__ import annotations

from typing import ClassVar

from ...store.arrays import Array
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, load_table_state, no_carry, table_state, table_values
from .behaviour import BehaviourPolicy, TabularConfig, expected, step_size
from .kernel import kernel
from .table import Table, discrete


@agent("expected-sarsa")
class ExpectedSarsa:
    """On-policy control that takes the expectation over the next action instead of the one that came."""

    masks: ClassVar[bool] = True

    Config = TabularConfig

    def __init__(self, config: TabularConfig, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("expected-sarsa", spaces)
        self.config = config
        self.table = Table(q=(actions, config.initial_value), visits=(actions, 0))
        self.behaviour = BehaviourPolicy(config, seed)

    num_steps, initial = property(configured_steps), no_carry
    values, act = table_values, act_by_values

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move = self.config, self.table.moves(batch)
        error = sweep(
            self.table["q"], self.table["visits"], move.row, move.action, move.reward, move.next,
            o.learning_rate, o.visit_decay, o.gamma, self.behaviour.epsilon, self.behaviour.temperature,
        )  # fmt: skip
        epsilon = self.behaviour.explored(progress)
        return {"td_error": error / move.row.size, "states": float(self.table.count), "epsilon": epsilon}

    state_dict, load_state_dict = table_state, load_table_state


@kernel
def sweep(
    q: Array, visits: Array, row: Array, action: Array, reward: Array, after: Array,
    learning_rate: float, omega: float, gamma: float, epsilon: float, temperature: float,
) -> float:  # fmt: skip
    """All steps in the order of time. Returns the sum of |delta|."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            # delta = R + gamma sum_a' pi(a' | S') Q(S', a') - Q(S, A);  Q(S, A) <- Q(S, A) + alpha delta
            delta = reward[t, b] + gamma * expected(q, after[t, b], epsilon, temperature) - q[s, a]
            q[s, a] += step_size(visits, s, a, learning_rate, omega) * delta
            total += abs(delta)
    return total
