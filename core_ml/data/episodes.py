"""Whole episodes from rollouts that begin and end in the middle of them, for Monte-Carlo estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...store.arrays import Array
from ..maths.returns import discounted_return, time_in_episode


class Full(ValueError):
    """Unfinished episodes have more steps than the buffer holds."""


class Ended(NamedTuple):
    """B steps of finished episodes, oldest first."""

    facts: dict[str, Array]  # the arrays given to `take`, each (B, A, ...)
    return_: Array  # float32 (B, A)
    time: Array  # int64 (B,): steps of the episode before this one
    late: int  # how many of them belong to an earlier rollout


class WholeEpisodes:
    """Takes rollouts of N environments with A agents, and returns each step once, with its return, when its episode has ended.

    Until then the step waits in a buffer. Nothing is returned before every environment has ended an episode: all begin
    together, and the first episodes to end are the short ones. From then on steps of long episodes come later, but in the
    number in which they were made.

    `kinds`: shape and dtype of each array of a step, besides "reward", "bootstrap" and "done". The buffer has room for
    `buffer_size` steps from the start, so that checkpoints of equal configurations have equal shapes.
    """

    def __init__(self, buffer_size: int, agents: int, kinds: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]) -> None:
        own: dict[str, tuple[tuple[int, ...], Any]] = {
            "reward": ((agents,), np.float32), "bootstrap": ((agents,), np.float32), "done": ((), np.bool_),
            "copy": ((), np.int64),  # which environment; the name of older checkpoints
        }  # fmt: skip
        self.buffer_size, self.names = buffer_size, list(kinds)
        self._waiting = {name: np.zeros((buffer_size, *shape), kind) for name, (shape, kind) in {**kinds, **own}.items()}
        self._count = np.zeros((), np.int64)  # steps that wait, in the first rows; of each environment the oldest first
        self._begun = np.zeros((), np.bool_)  # every environment has ended an episode

    def take(self, facts: dict[str, Array], reward: Array, bootstrap: Array, done: Array, gamma: float) -> Ended:
        """One rollout: `facts` (T, N, A, ...), `reward` and `bootstrap` float32 (T, N, A), `done` bool (T, N).

        `bootstrap` and `gamma` as in `returns.discounted_return`. Raises Full where the waiting steps do not fit.
        """
        steps, num_envs = done.shape
        env = np.broadcast_to(np.arange(num_envs), (steps, num_envs))
        old = int(self._count)
        new = {**facts, "reward": reward, "bootstrap": bootstrap, "done": done, "copy": env}
        known = {
            name: np.concatenate([rows[:old], new[name].reshape(steps * num_envs, *rows.shape[1:])])
            for name, rows in self._waiting.items()
        }
        # One column for each environment, time from top to bottom, all ending in the last row. An episode begins with the first
        # step of each column.
        env = known["copy"]
        many = np.bincount(env, minlength=num_envs)
        order = np.argsort(env, kind="stable")
        row = np.empty(len(env), np.int64)
        row[order] = np.arange(len(env)) + np.repeat(many.max() - np.cumsum(many), many)

        def table(values: Array) -> Array:
            out = np.zeros((many.max(), num_envs, *values.shape[1:]), values.dtype)
            out[row, env] = values
            return out

        ends = table(known["done"])
        return_ = discounted_return(table(known["reward"]), table(known["bootstrap"]), ends[:, :, None], gamma)[row, env]
        began = many.max() - many  # row of each environment's first step
        time = np.minimum(time_in_episode(ends), np.arange(many.max())[:, None] - began)[row, env]
        last = np.where(ends.any(0), many.max() - 1 - ends[::-1].argmax(0), -1)  # row of each environment's last end
        self._begun |= bool((last >= 0).all())
        over = (row <= last[env]) & self._begun
        rest = {name: values[~over] for name, values in known.items()}
        if len(rest["copy"]) > self.buffer_size:
            raise Full(f"{len(rest['copy']):,} steps of unfinished episodes, and room for {self.buffer_size:,}")
        for name, values in rest.items():
            self._waiting[name][: len(values)] = values
        self._count[...] = len(rest["copy"])
        given = {name: known[name][over] for name in self.names}
        return Ended(given, return_[over], time[over], int(over[:old].sum()))

    def state(self) -> dict[str, Array]:
        return {**self._waiting, "count": self._count, "begun": self._begun}

    def load(self, state: dict[str, Array]) -> None:
        """Put back what `state` gave. Raises ValueError for a count that cannot be."""
        if not 0 <= int(state["count"]) <= self.buffer_size:
            raise ValueError(f"{int(state['count'])} steps wait, of at most {self.buffer_size}")
        for name, array in self.state().items():
            array[...] = state[name]
