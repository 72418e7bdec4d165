"""Q-learning (Watkins 1989, Learning from Delayed Rewards; Sutton & Barto 2018, section 6.5)."""

from __future__ import annotations

from typing import ClassVar

from ...store.arrays import Array
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, load_table_state, no_carry, table_state, table_values
from .behaviour import BehaviourPolicy, OpponentConfig, highest, step_size
from .kernel import kernel
from .table import Table, discrete, others


@agent("q-learning")
class QLearning:
    """Off-policy control: action values of the greedy policy, whatever explores."""

    masks: ClassVar[bool] = True

    Config = OpponentConfig

    def __init__(self, config: OpponentConfig, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("q-learning", spaces)
        self.config = config
        blank = others("q-learning", spaces, config.opponent)
        self.table = Table(blank, q=(actions, config.initial_value), visits=(actions, 0))
        self.behaviour = BehaviourPolicy(config, seed)

    num_steps, initial = property(configured_steps), no_carry
    values, act = table_values, act_by_values

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move = self.config, self.table.moves(batch)
        error = sweep(
            self.table["q"], self.table["visits"], move.row, move.action, move.reward, move.next,
            o.learning_rate, o.visit_decay, o.gamma,
        )  # fmt: skip
        epsilon = self.behaviour.explored(progress)
        return {"td_error": error / move.row.size, "states": float(self.table.count), "epsilon": epsilon}

    state_dict, load_state_dict = table_state, load_table_state


@kernel
def sweep(
    q: Array, visits: Array, row: Array, action: Array, reward: Array, after: Array,
    learning_rate: float, omega: float, gamma: float,
) -> float:  # fmt: skip
    """All steps in the order of time. Returns the sum of |delta|."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            # delta = R + gamma max_a' Q(S', a') - Q(S, A);  Q(S, A) <- Q(S, A) + alpha delta
            delta = reward[t, b] + gamma * highest(q, after[t, b]) - q[s, a]
            q[s, a] += step_size(visits, s, a, learning_rate, omega) * delta
            total += abs(delta)
    return total
