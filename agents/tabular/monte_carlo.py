"""On-policy Monte-Carlo control (Sutton & Barto 2018, section 5.4), first or every visit."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ...store.arrays import Array, check_growing
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, no_carry, table_values
from .behaviour import BehaviourPolicy, TabularConfig, expected, step_size
from .kernel import kernel
from .table import Table, discrete
from .traces import Held


@agent("monte-carlo")
class MonteCarlo:
    """Control by the returns of whole episodes. Of a truncated one the rest is not known: there it bootstraps, once.

    With the defaults an action value is the mean of the returns that followed it.
    """

    masks: ClassVar[bool] = True

    class Config(TabularConfig):
        learning_rate: float = Field(1.0, gt=0, le=1, description="step size of a pair's first update")
        visit_decay: float = Field(1.0, ge=0, le=1, description="omega: the n-th update's is learning_rate / n^omega")
        visit: Literal["first", "every"] = Field("first", description="which visits of an episode to a pair count")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("monte-carlo", spaces)
        self.config = config
        self.table = Table(q=(actions, config.initial_value), visits=(actions, 0), seen=(actions, 0))
        self.behaviour = BehaviourPolicy(config, seed)
        self.held = Held()  # the running episodes

    num_steps, initial = property(configured_steps), no_carry
    values, act = table_values, act_by_values

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move, held = self.config, self.table.moves(batch), self.held
        held.reserve(move.row.shape[1], len(move.row))
        error, updates = sweep(
            self.table["q"], self.table["visits"], self.table["seen"], *move,
            held.length, held.row, held.action, held.number, o.learning_rate, o.visit_decay, o.gamma,
            self.behaviour.epsilon, self.behaviour.temperature, o.visit == "first",
        )  # fmt: skip
        epsilon = self.behaviour.explored(progress)
        return {"return_error": error / max(updates, 1), "states": float(self.table.count), "epsilon": epsilon}

    def state_dict(self) -> dict[str, Array]:
        return self.table.state() | self.held.state() | self.behaviour.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_growing(state, self.state_dict(), "agent monte-carlo")
        self.table.load(state)
        self.held.load(state, *self.table["q"][: self.table.count].shape)
        self.behaviour.load(state)


@kernel
def sweep(
    q: Array, visits: Array, seen: Array, row: Array, action: Array, reward: Array, after: Array, ended: Array,
    length: Array, held_row: Array, held_action: Array, held_reward: Array,
    learning_rate: float, omega: float, gamma: float, epsilon: float, temperature: float, first: bool,
) -> tuple[float, int]:  # fmt: skip
    """Episodes in the order in which they end. `seen` (S, A) is 0 between episodes. Returns the sum of |G - Q| and updates."""
    total, updates = 0.0, 0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            last = length[b]
            held_row[b, last], held_action[b, last], held_reward[b, last] = row[t, b], action[t, b], reward[t, b]
            length[b] += 1
            if not ended[t, b]:
                continue
            for k in range(length[b]):
                seen[held_row[b, k], held_action[b, k]] += 1
            g = expected(q, after[t, b], epsilon, temperature)
            for k in range(length[b] - 1, -1, -1):
                s, a = held_row[b, k], held_action[b, k]
                # G <- R + gamma G;  Q(S, A) <- Q(S, A) + alpha_n [G - Q(S, A)], with alpha_n = 1 / n the mean of the returns
                g = held_reward[b, k] + gamma * g
                seen[s, a] -= 1
                if not first or seen[s, a] == 0:  # backwards, the first visit comes last
                    total += abs(g - q[s, a])
                    q[s, a] += step_size(visits, s, a, learning_rate, omega) * (g - q[s, a])
                    updates += 1
            length[b] = 0
    return total, updates
