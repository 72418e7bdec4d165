"""Whole episodes out of rollouts that cut them anywhere: what Monte-Carlo estimates are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...store.arrays import Array
from ..maths.returns import discounted_return, time_in_episode


class Full(ValueError):
    """More steps are under way than there is room for."""


class Ended(NamedTuple):
    """B steps whose episodes are over, oldest first."""

    facts: dict[str, Array]  # as they were given, each (B, A, ...)
    return_: Array  # float32 (B, A)
    time: Array  # int64 (B,): steps of the episode before this one
    late: int  # how many came with an earlier rollout


class WholeEpisodes:
    """Takes rollouts of N copies with A agents, and gives out each step once, with its return, when its episode is over.

    Until then it is kept, whatever the number of rollouts. Nothing is given out before every copy has ended an episode:
    all begin together, and the first to end are the short ones. From then on the steps of long episodes come late, but as
    many of them as were made.

    `kinds`: shape and type of each fact about a step of a copy, without "reward", "bootstrap" and "done", which are kept in any
    case. Memory for `buffer_size` steps is there from the start, so that checkpoints of equal configurations look alike.
    """

    def __init__(self, capacity: int, agents: int, kinds: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]) -> None:
        own: dict[str, tuple[tuple[int, ...], Any]] = {
            "reward": ((agents,), np.float32), "bootstrap": ((agents,), np.float32), "done": ((), np.bool_),
            "copy": ((), np.int64),
        }  # fmt: skip
        self.buffer_size, self.names = capacity, list(kinds)
        self._kept = {name: np.zeros((capacity, *shape), kind) for name, (shape, kind) in {**kinds, **own}.items()}
        self._count = np.zeros((), np.int64)  # the first so many are kept steps; of each copy the oldest first
        self._begun = np.zeros((), np.bool_)  # every copy has ended an episode

    def take(self, facts: dict[str, Array], reward: Array, bootstrap: Array, done: Array, gamma: float) -> Ended:
        """One rollout: `facts` (T, N, A, ...), `reward` and `bootstrap` float32 (T, N, A), `done` bool (T, N).

        `bootstrap` and `gamma` as in `returns.discounted_return`. Raises Full where the rest does not fit.
        """
        steps, copies = done.shape
        copy = np.broadcast_to(np.arange(copies), (steps, copies))
        old = int(self._count)
        new = {**facts, "reward": reward, "bootstrap": bootstrap, "done": done, "copy": copy}
        known = {
            name: np.concatenate([kept[:old], new[name].reshape(steps * copies, *kept.shape[1:])])
            for name, kept in self._kept.items()
        }
        # One column a copy, time running down, all ending in the last row: where a copy's first step is, an episode begins.
        copy = known["copy"]
        many = np.bincount(copy, minlength=copies)
        order = np.argsort(copy, kind="stable")
        row = np.empty(len(copy), np.int64)
        row[order] = np.arange(len(copy)) + np.repeat(many.max() - np.cumsum(many), many)

        def table(values: Array) -> Array:
            out = np.zeros((many.max(), copies, *values.shape[1:]), values.dtype)
            out[row, copy] = values
            return out

        ends = table(known["done"])
        return_ = discounted_return(table(known["reward"]), table(known["bootstrap"]), ends[:, :, None], gamma)[row, copy]
        began = many.max() - many  # the row of a copy's first step
        time = np.minimum(time_in_episode(ends), np.arange(many.max())[:, None] - began)[row, copy]
        last = np.where(ends.any(0), many.max() - 1 - ends[::-1].argmax(0), -1)  # row of each copy's last end
        self._begun |= bool((last >= 0).all())
        over = (row <= last[copy]) & self._begun
        rest = {name: values[~over] for name, values in known.items()}
        if len(rest["copy"]) > self.buffer_size:
            raise Full(f"{len(rest['copy']):,} steps of episodes under way, and room for {self.buffer_size:,}")
        for name, values in rest.items():
            self._kept[name][: len(values)] = values
        self._count[...] = len(rest["copy"])
        given = {name: known[name][over] for name in self.names}
        return Ended(given, return_[over], time[over], int(over[:old].sum()))

    def state(self) -> dict[str, Array]:
        return {**self._kept, "count": self._count, "begun": self._begun}

    def load(self, state: dict[str, Array]) -> None:
        """Put back what `state` gave. Raises ValueError for a count that cannot be."""
        if not 0 <= int(state["count"]) <= self.buffer_size:
            raise ValueError(f"{int(state['count'])} steps kept, of at most {self.buffer_size}")
        for name, array in self.state().items():
            array[...] = state[name]
