"""Prioritised sweeping (Moore & Atkeson 1993; Peng & Williams 1993; Sutton & Barto 2018, section 8.4)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array, check_growing
from ..protocol import Rollout, Spaces
from ..registry import agent
from .acting import act_by_values, configured_steps, no_carry, table_values
from .behaviour import BehaviourPolicy, TabularConfig, highest
from .experience import COLUMNS, Experience, remember
from .kernel import inner, kernel
from .table import UNKNOWN, Table, discrete


@agent("prioritised-sweeping")
class PrioritisedSweeping:
    """Planning where it matters: the pair whose action value the model would change most is backed up first.

    Backups are full, an expectation over the model's outcomes, and need no step size.
    """

    masks: ClassVar[bool] = True

    class Config(TabularConfig):
        planning: int = Field(10, ge=0, le=10_000, description="backups after each real step, at most")
        threshold: float = Field(1e-4, gt=0, le=1e6, description="change of an action value that is worth a backup")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        actions = discrete("prioritised-sweeping", spaces)
        self.config = config
        model: dict[str, Any] = {name: (actions, fill) for name, fill in COLUMNS.items()}
        # place: where a pair stands in the queue, from 1 on; 0: nowhere
        self.table = Table(
            q=(actions, config.initial_value), into=(1, UNKNOWN), place=(actions, 0), priority=(actions, 0.0), **model
        )
        self.experience = Experience()
        self.queue = np.zeros(0, np.int64)  # a heap of pairs, row * actions + action, the highest priority first
        self.behaviour = BehaviourPolicy(config, seed)

    num_steps, initial = property(configured_steps), no_carry
    values, act = table_values, act_by_values

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o, move, table, model = self.config, self.table.moves(batch), self.table, self.experience
        columns = table["first"], table["tried"], table["into"], *model.reserve(move.row.size)
        heap = np.zeros(table.count * table["q"].shape[1] + 1, np.int64)  # room for all pairs
        heap[: len(self.queue)] = self.queue
        error, model.outcomes.count, model.visited.count, size = sweep(
            table["q"], *columns, model.outcomes.count, model.visited.count, heap, len(self.queue), table["place"],
            table["priority"], move.row, move.action, move.reward, move.next, o.gamma, o.planning, o.threshold,
        )  # fmt: skip
        self.queue = heap[:size].copy()
        epsilon = self.behaviour.explored(progress)
        return {"error": error / move.row.size, "states": float(table.count), "queue": float(size), "epsilon": epsilon}

    def state_dict(self) -> dict[str, Array]:
        return self.table.state() | self.experience.state() | {"queue/pair": self.queue.copy()} | self.behaviour.state()

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_growing(state, self.state_dict(), "agent prioritised-sweeping")
        self.table.load(state)
        self.experience.load(state, self.table)
        self.queue = state["queue/pair"].copy()
        place = np.zeros_like(self.table["place"][: self.table.count])
        if not ((self.queue >= 0) & (self.queue < place.size)).all():
            raise ValueError("agent prioritised-sweeping: the queue points beyond the table: is the checkpoint whole?")
        place.ravel()[self.queue] = np.arange(1, len(self.queue) + 1)
        if (place != self.table["place"][: self.table.count]).any():
            raise ValueError("agent prioritised-sweeping: the queue and its places differ: is the checkpoint whole?")
        self.behaviour.load(state)


@inner
def backed_up(
    q: Array,
    first: Array,
    tried: Array,
    following: Array,
    count: Array,
    mean: Array,
    chain: Array,
    s: int,
    a: int,
    gamma: float,
) -> float:
    """sum_s' p(s' | s, a) [r(s, a, s') + gamma max_a' Q(s', a')], by the model."""
    total = 0.0
    node = first[s, a]
    while node >= 0:
        total += count[node] * (mean[node] + gamma * highest(q, following[node]))
        node = chain[node]
    return float(total / tried[s, a])


@inner
def settle(heap: Array, size: int, place: Array, priority: Array, at: int) -> None:
    """Move the pair at `at` up or down until parents come before their children."""
    actions = place.shape[1]
    pair = heap[at]
    p = priority[pair // actions, pair % actions]
    while at > 0:
        parent = (at - 1) // 2
        other = heap[parent]
        if priority[other // actions, other % actions] >= p:
            break
        heap[at] = other
        place[other // actions, other % actions] = at + 1
        at = parent
    while 2 * at + 1 < size:
        child = 2 * at + 1
        other = heap[child]
        if child + 1 < size:
            right = heap[child + 1]
            if priority[right // actions, right % actions] > priority[other // actions, other % actions]:
                child, other = child + 1, right
        if priority[other // actions, other % actions] <= p:
            break
        heap[at] = other
        place[other // actions, other % actions] = at + 1
        at = child
    heap[at] = pair
    place[pair // actions, pair % actions] = at + 1


@inner
def push(heap: Array, size: int, place: Array, priority: Array, s: int, a: int, p: float) -> int:
    """Put a pair into the queue, or change its priority there. Returns the queue's length."""
    priority[s, a] = p
    at = place[s, a] - 1
    if at < 0:
        at = size
        heap[at] = s * place.shape[1] + a
        size += 1
    settle(heap, size, place, priority, at)
    return size


@inner
def pop(heap: Array, size: int, place: Array, priority: Array) -> Any:
    """Take the pair of the highest priority; the queue has one less then."""
    actions = place.shape[1]
    pair = heap[0]
    place[pair // actions, pair % actions] = 0
    if size > 1:
        heap[0] = heap[size - 1]
        settle(heap, size - 1, place, priority, 0)
    return pair


@kernel
def sweep(
    q: Array, first: Array, tried: Array, into: Array, node_row: Array, node_action: Array, following: Array,
    count: Array, mean: Array, chain: Array, into_chain: Array, visited: Array, nodes: int, rows: int,
    heap: Array, size: int, place: Array, priority: Array,
    row: Array, action: Array, reward: Array, after: Array, gamma: float, planning: int, threshold: float,
) -> tuple[float, int, int, int]:  # fmt: skip
    """All steps in the order of time. Returns the sum of |delta| at real steps, outcomes, rows, and the queue's length."""
    total = 0.0
    for t in range(row.shape[0]):
        for b in range(row.shape[1]):
            s, a = row[t, b], action[t, b]
            # Model(S, A) <- R, S'
            nodes, rows = remember(
                first, tried, into, node_row, node_action, following, count, mean, chain, into_chain, visited,
                nodes, rows, s, a, float(reward[t, b]), after[t, b],
            )  # fmt: skip
            # P <- |backup(S, A) - Q(S, A)|; if P > theta, insert (S, A) with priority P
            delta = abs(backed_up(q, first, tried, following, count, mean, chain, s, a, gamma) - q[s, a])
            total += delta
            if delta > threshold:
                size = push(heap, size, place, priority, s, a, delta)
            for _ in range(planning):
                if size == 0:
                    break
                # (S, A) <- the first of the queue;  Q(S, A) <- backup(S, A)
                pair = pop(heap, size, place, priority)
                size -= 1
                s, a = pair // q.shape[1], pair % q.shape[1]
                q[s, a] = backed_up(q, first, tried, following, count, mean, chain, s, a, gamma)
                # for all (s, a) predicted to lead to S: the same, with their own priorities
                node = into[s, 0]
                while node >= 0:
                    before, did = node_row[node], node_action[node]
                    p = abs(backed_up(q, first, tried, following, count, mean, chain, before, did, gamma) - q[before, did])
                    if p > threshold:
                        size = push(heap, size, place, priority, before, did, p)
                    node = into_chain[node]
    return total, nodes, rows, size
