"""Dyna-Q (Sutton 1990; Sutton & Barto 2018, section 8.2)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ...store.arrays import Array, check_growing
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, no_carry, table_values
from .behaviour import BehaviourPolicy, TabularConfig, highest, step_size
from .experience import COLUMNS, Experience, remember
from .kernel import kernel
from .table import UNKNOWN, Table, discrete


@agent("dyna-q")
class DynaQ:
    """Q-learning that after every step repeats remembered ones: rows that were visited, actions tried there, at random.

    The model counts outcomes (`experience.py`), so that it is right in worlds with chance, too.
    """

    masks: ClassVar[bool] = True

    class Config(TabularConfig):
        planning: int = Field(10, ge=0, le=10_000, description="remembered steps after each real one")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("dyna-q", spaces)
        self.config = config
        model: dict[str, Any] = {name: (actions, fill) for name, fill in COLUMNS.items()}
        self.table = Table(q=(actions, config.initial_value), visits=(actions, 0), into=(1, UNKNOWN), **model)
        self.experience = Experience()
        self.behaviour = BehaviourPolicy(config, seed)

    num_steps, initial = property(configured_steps), no_carry
    values, act = table_values, act_by_values

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move, table, model = self.config, self.table.moves(batch), self.table, self.experience
        draws = self.behaviour.rng.random((*move.row.shape, o.planning, 3))
        columns = table["first"], table["tried"], table["into"], *model.reserve(move.row.size)
        error, model.outcomes.count, model.visited.count = sweep(
            table["q"], table["visits"], *columns, model.outcomes.count, model.visited.count,
            move.row, move.action, move.reward, move.next, draws, o.learning_rate, o.visit_decay, o.gamma,
        )  # fmt: skip
        epsilon = self.behaviour.explored(progress)
        return {"td_error": error / move.row.size, "states": float(table.count), "epsilon": epsilon}

    def state_dict(self) -> dict[str, Array]:
        return self.table.state() | self.experience.state() | self.behaviour.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_growing(state, self.state_dict(), "agent dyna-q")
        self.table.load(state)
        self.experience.load(state, self.table)
        self.behaviour.load(state)


@kernel
def sweep(
    q: Array, visits: Array, first: Array, tried: Array, into: Array, node_row: Array, node_action: Array, following: Array,
    count: Array, mean: Array, chain: Array, into_chain: Array, visited: Array, nodes: int, rows: int,
    row: Array, action: Array, reward: Array, after: Array, draws: Array,
    learning_rate: float, omega: float, gamma: float,
) -> tuple[float, int, int]:  # fmt: skip
    """All steps in the order of time; `draws` (T, B, planning, 3) are uniform. Returns sum of |delta|, outcomes and rows."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            # Q(S, A) <- Q(S, A) + alpha [R + gamma max_a Q(S', a) - Q(S, A)]
            delta = reward[t, b] + gamma * highest(q, after[t, b]) - q[s, a]
            q[s, a] += step_size(visits, s, a, learning_rate, omega) * delta
            total += abs(delta)
            # Model(S, A) <- R, S'
            nodes, rows = remember(
                first, tried, into, node_row, node_action, following, count, mean, chain, into_chain, visited,
                nodes, rows, s, a, float(reward[t, b]), after[t, b],
            )  # fmt: skip
            for k in range(draws.shape[2]):
                # S <- a visited state, A <- an action tried in S, R, S' <- Model(S, A), all at random
                s = visited[int(draws[t, b, k, 0] * rows)]
                some = 0
                for c in range(q.shape[1]):
                    some += tried[s, c] > 0
                skip = int(draws[t, b, k, 1] * some)
                a = 0
                for c in range(q.shape[1]):
                    if tried[s, c] > 0:
                        a = c
                        if skip == 0:
                            break
                        skip -= 1
                left = draws[t, b, k, 2] * tried[s, a]
                node = first[s, a]
                while left >= count[node] and chain[node] >= 0:
                    left -= count[node]
                    node = chain[node]
                # Q(S, A) <- Q(S, A) + alpha [R + gamma max_a Q(S', a) - Q(S, A)]; only real steps count for alpha
                alpha = learning_rate if omega == 0.0 else learning_rate / float(visits[s, a]) ** omega
                q[s, a] += alpha * (mean[node] + gamma * highest(q, following[node]) - q[s, a])
    return total, nodes, rows
