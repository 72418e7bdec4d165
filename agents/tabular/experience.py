"""A model learned from experience: for each pair of row and action the outcomes that have followed it, and how often.

The estimate is the one of maximum likelihood: p(s' | s, a) = n(s, a, s') / n(s, a), with the mean reward of each outcome. In
a deterministic world a pair has one outcome, and the model is Sutton's. Outcomes are nodes of linked lists in flat arrays.
"""

from __future__ import annotations

import numpy as np

from ...store.arrays import Array
from .kernel import inner
from .table import UNKNOWN, Pool, Table, check_indices

COLUMNS = {"first": UNKNOWN, "tried": 0}  # of a table, one for each action: the first outcome, how often it was tried


class Experience:
    """The outcomes, beside the table's columns `COLUMNS` and its column `into`, (rows, 1), the first outcome leading there."""

    def __init__(self) -> None:
        self.outcomes = Pool(
            row=(1, 0), action=(1, 0), next=(1, 0), count=(1, 0), reward=(1, 0.0), chain=(1, 0), into_chain=(1, 0)
        )
        self.visited = Pool(visited=(1, 0))  # rows with an action that was tried, in the order of their first time

    def reserve(self, more: int) -> tuple[Array, ...]:
        """Room for `more` outcomes. Returns the columns, (M,) each, as kernels take them."""
        self.outcomes.reserve(self.outcomes.count + more)
        self.visited.reserve(self.visited.count + more)
        return (*(column[:, 0] for column in self.outcomes.columns.values()), self.visited["visited"][:, 0])

    def state(self) -> dict[str, Array]:
        return self.outcomes.state("outcomes/") | self.visited.state("visited/")

    def load(self, state: dict[str, Array], table: Table) -> None:
        """Put back what `state` gave, beside the loaded `table`. Raises ValueError where it points beyond anything."""
        rows, actions = table["tried"][: table.count].shape
        nodes = np.arange(len(state["outcomes/chain"]))[:, None]  # a chain leads to older outcomes
        check_indices(
            state, outcomes__row=rows, outcomes__action=actions, outcomes__next=rows, outcomes__chain=nodes,
            outcomes__into_chain=nodes, visited__visited=rows, table__first=len(nodes), table__into=len(nodes),
        )  # fmt: skip
        named = np.concatenate([state[name].ravel() for name in ("outcomes/row", "outcomes/action", "visited/visited")])
        if (named < 0).any() or ((table["tried"][:rows] > 0) != (table["first"][:rows] >= 0)).any():
            raise ValueError("what was tried has no outcome: is the checkpoint whole?")
        self.outcomes.load(state, "outcomes/")
        self.visited.load(state, "visited/")


@inner
def remember(
    first: Array, tried: Array, into: Array, row: Array, action: Array, following: Array, count: Array, reward: Array,
    chain: Array, into_chain: Array, visited: Array, nodes: int, rows: int, s: int, a: int, r: float, after: int,
) -> tuple[int, int]:  # fmt: skip
    """Count one outcome of (s, a); `nodes` outcomes and `rows` visited rows are there. Returns how many there are then."""
    new = True
    for b in range(tried.shape[1]):
        new = new and tried[s, b] == 0
    if new:
        visited[rows] = s
        rows += 1
    tried[s, a] += 1
    node = first[s, a]
    while node >= 0 and following[node] != after:
        node = chain[node]
    if node < 0:
        node = nodes
        nodes += 1
        row[node], action[node], following[node], count[node], reward[node] = s, a, after, 0, 0.0
        chain[node], first[s, a] = first[s, a], node
        into_chain[node] = -1
        if after >= 0:
            into_chain[node], into[after, 0] = into[after, 0], node
    count[node] += 1
    # the mean of this outcome's rewards
    reward[node] += (r - reward[node]) / count[node]
    return nodes, rows
