"""SARSA, n-step SARSA and SARSA(lambda) (Rummery & Niranjan 1994; Sutton & Barto 2018, sections 6.4, 7.2 and 12.7)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from ...store.arrays import Array, check_growing
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, no_carry, table_values
from .behaviour import BehaviourPolicy, OpponentConfig, expected, step_size
from .kernel import kernel
from .table import Table, discrete, others
from .traces import Held, credit


@agent("sarsa")
class Sarsa:
    """On-policy control: action values of the policy that explores; n steps ahead, or by eligibility traces.

    An update needs the action n steps later. The last n transitions of a stream are held until the next rollout shows it,
    so that with one environment and num_steps=1 every update and every choice comes in the order of the textbook. Where an
    episode is truncated there is no next action: then the expectation over the policy's, sum_a pi(a | S') Q(S', a), stands for
    it.
    """

    masks: ClassVar[bool] = True

    class Config(OpponentConfig):
        n: int = Field(1, ge=1, le=1000, description="steps whose rewards are counted before an action value is trusted")
        trace_lambda: float = Field(0.0, ge=0, le=1, description="lambda of the eligibility traces; 0: none")
        trace: Literal["accumulating", "replacing"] = Field("accumulating", description="what a second visit does to a trace")

        @model_validator(mode="after")
        def _one_way(self) -> Any:
            if self.n > 1 and self.trace_lambda:
                raise ValueError("n and trace_lambda both look ahead: leave one of them out")
            return self

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("sarsa", spaces)
        self.config = config
        blank = others("sarsa", spaces, config.opponent)
        self.table = Table(blank, q=(actions, config.initial_value), visits=(actions, 0))
        self.behaviour = BehaviourPolicy(config, seed)
        self.held = Held()  # the transitions that wait
        self.trace = Held()

    num_steps, initial = property(configured_steps), no_carry
    values, act = table_values, act_by_values

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move, held, trace = self.config, self.table.moves(batch), self.held, self.trace
        held.reserve(move.row.shape[1], o.n)
        common = (
            self.table["q"], self.table["visits"], *move, held.length, held.row, held.action, held.number,
            o.learning_rate, o.visit_decay, o.gamma, self.behaviour.epsilon, self.behaviour.temperature,
        )  # fmt: skip
        if o.trace_lambda:
            trace.reserve(move.row.shape[1], len(move.row) + 1)
            replacing = o.trace == "replacing"
            error = sweep_traces(
                *common, trace.length, trace.row, trace.action, trace.number, replacing, o.gamma * o.trace_lambda
            )
        else:
            error = sweep(*common, o.n)
        epsilon = self.behaviour.explored(progress)
        return {"td_error": error / move.row.size, "states": float(self.table.count), "epsilon": epsilon}

    def state_dict(self) -> dict[str, Array]:
        parts = {f"{part}.{name}": array for part in ("held", "trace") for name, array in getattr(self, part).state().items()}
        return self.table.state() | parts | self.behaviour.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_growing(state, self.state_dict(), "agent sarsa")
        self.table.load(state)
        for part in ("held", "trace"):
            names = getattr(self, part).state()
            getattr(self, part).load(
                {name: state[f"{part}.{name}"] for name in names}, *self.table["q"][: self.table.count].shape
            )
        self.behaviour.load(state)


@kernel
def sweep(
    q: Array, visits: Array, row: Array, action: Array, reward: Array, after: Array, ended: Array,
    length: Array, held_row: Array, held_action: Array, held_reward: Array,
    learning_rate: float, omega: float, gamma: float, epsilon: float, temperature: float, n: int,
) -> float:  # fmt: skip
    """n-step SARSA. All steps in the order of time; returns the sum of |delta|."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            if length[b] == n:  # the oldest transition has waited for this state and action
                # G = R_1 + gamma R_2 + ... + gamma^(n-1) R_n + gamma^n Q(S_n, A_n)
                g = q[s, a]
                for k in range(n - 1, -1, -1):
                    g = held_reward[b, k] + gamma * g
                then, did = held_row[b, 0], held_action[b, 0]
                # Q(S_0, A_0) <- Q(S_0, A_0) + alpha [G - Q(S_0, A_0)]
                delta = g - q[then, did]
                q[then, did] += step_size(visits, then, did, learning_rate, omega) * delta
                total += abs(delta)
                for k in range(n - 1):
                    held_row[b, k], held_action[b, k] = held_row[b, k + 1], held_action[b, k + 1]
                    held_reward[b, k] = held_reward[b, k + 1]
                length[b] -= 1
            last = length[b]
            held_row[b, last], held_action[b, last], held_reward[b, last] = s, a, reward[t, b]
            length[b] += 1
            if ended[t, b]:  # all that wait get the rewards there were, and at truncation what was to be expected
                end = expected(q, after[t, b], epsilon, temperature)
                for first in range(length[b]):
                    g = end
                    for k in range(length[b] - 1, first - 1, -1):
                        g = held_reward[b, k] + gamma * g
                    then, did = held_row[b, first], held_action[b, first]
                    delta = g - q[then, did]
                    q[then, did] += step_size(visits, then, did, learning_rate, omega) * delta
                    total += abs(delta)
                length[b] = 0
    return total


@kernel
def sweep_traces(
    q: Array, visits: Array, row: Array, action: Array, reward: Array, after: Array, ended: Array,
    length: Array, held_row: Array, held_action: Array, held_reward: Array,
    learning_rate: float, omega: float, gamma: float, epsilon: float, temperature: float,
    trace_length: Array, trace_row: Array, trace_action: Array, eligibility: Array, replacing: bool, decay: float,
) -> float:  # fmt: skip
    """SARSA(lambda). All steps in the order of time; returns the sum of |delta|."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            if length[b] == 1:
                # delta = R + gamma Q(S', A') - Q(S, A), for the transition that has waited for A'
                then, did = held_row[b, 0], held_action[b, 0]
                delta = held_reward[b, 0] + gamma * q[s, a] - q[then, did]
                credit(
                    q, visits, trace_length, trace_row, trace_action, eligibility, b, then, did,
                    replacing, delta, decay, learning_rate, omega,
                )  # fmt: skip
                total += abs(delta)
            held_row[b, 0], held_action[b, 0], held_reward[b, 0] = s, a, reward[t, b]
            length[b] = 1
            if ended[t, b]:
                delta = reward[t, b] + gamma * expected(q, after[t, b], epsilon, temperature) - q[s, a]
                credit(
                    q, visits, trace_length, trace_row, trace_action, eligibility, b, s, a,
                    replacing, delta, decay, learning_rate, omega,
                )  # fmt: skip
                total += abs(delta)
                length[b] = 0
                trace_length[b] = 0
    return total
