"""Tables over hashed observations: a row for each observation that has been met, found by 64 bits of its bytes.

Open addressing over flat arrays that grow. Two observations share a row where their 64 bits are equal: among a million
rows the chance that any two do is 3e-8. Rows keep their numbers for ever, so that other arrays can name them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ...native.splitmix64 import GOLDEN, MIX_1
from ...store.arrays import Array
from ..protocol import Rollout, Spaces
from .kernel import kernel

FIRST = 256  # rows that there is room for at the start
UNKNOWN = -1  # the row of what has no row; as a next row: the episode terminated, whose value is 0
S32, S29 = np.uint64(32), np.uint64(29)


class Moves(NamedTuple):
    """A rollout as transitions between rows of a table: T steps of B streams, a stream for each agent of each copy."""

    row: Array  # int64 (T, B)
    action: Array  # int64 (T, B)
    reward: Array  # float32 (T, B)
    next: Array  # int64 (T, B): the row of what was seen after the step; UNKNOWN: terminated
    ended: Array  # bool (T, B): terminated or truncated


class Pool:
    """Named columns of equal length that grow together; each is (rows, width) and starts at its filling value."""

    def __init__(self, **columns: tuple[int, Any]) -> None:
        """`columns`: name -> (width, filling value); its type is the column's."""
        self.count = 0
        self._fill = {name: np.full((1, width), value) for name, (width, value) in columns.items()}
        self.columns: dict[str, Array] = {name: np.repeat(one, FIRST, 0) for name, one in self._fill.items()}

    def __getitem__(self, name: str) -> Array:
        """The whole column, room for later rows included; hold it no longer than until rows are added."""
        return self.columns[name]

    def initial(self, name: str) -> Array:
        """What a row of a column starts with, (1, width)."""
        return self._fill[name]

    @property
    def room(self) -> int:
        return len(next(iter(self.columns.values())))

    def reserve(self, rows: int) -> None:
        """Make room for `rows` rows, doubling."""
        room = self.room
        while room < rows:
            room *= 2
        if room > self.room:
            for name, one in self._fill.items():
                more = np.repeat(one, room - len(self.columns[name]), 0)
                self.columns[name] = np.concatenate((self.columns[name], more))

    def state(self, prefix: str) -> dict[str, Array]:
        """The rows in use, by name."""
        return {prefix + name: column[: self.count].copy() for name, column in self.columns.items()}

    def load(self, state: dict[str, Array], prefix: str) -> None:
        """Put back what `state` gave, of any length."""
        self.count = len(state[prefix + next(iter(self.columns))])
        for name, one in self._fill.items():
            self.columns[name] = np.repeat(one, FIRST, 0)
        self.reserve(self.count)
        for name in self.columns:
            self.columns[name][: self.count] = state[prefix + name]


class Table:
    """Columns of numbers with a row for each observation.

    `blank`: where an observation's numbers are not to count; see `others`.
    """

    def __init__(self, blank: slice | None = None, **columns: tuple[int, Any]) -> None:
        self._pool = Pool(key=(1, np.uint64(0)), **columns)
        self._blank = blank
        self._slots = np.full(2 * FIRST, UNKNOWN, np.int64)

    def __getitem__(self, name: str) -> Array:
        return self._pool[name]

    @property
    def count(self) -> int:
        """Observations met."""
        return self._pool.count

    def _hashed(self, obs: Array, lead: int) -> Array:
        """The 64 bits of each observation, uint64 (B,); the first `lead` axes of `obs` tell them apart."""
        count = int(np.prod(obs.shape[:lead]))
        numbers = np.ascontiguousarray(obs).reshape(count, -1)
        if self._blank is not None:
            numbers = numbers.copy()
            numbers[:, self._blank] = 0
        if numbers.dtype.kind == "f":
            numbers = numbers + numbers.dtype.type(0)  # -0.0 is 0.0
        size = numbers.shape[1] * numbers.itemsize
        if size % 8:
            padded = np.zeros((count, size + -size % 8), np.uint8)
            padded[:, :size] = numbers.view(np.uint8)
            numbers = padded
        out = np.empty(count, np.uint64)
        hash_words(numbers.view(np.uint64), out)
        return out

    def find(self, obs: Array, lead: int = 2) -> Array:
        """Rows of observations (..., *observation), int64 (B,); UNKNOWN where there is none."""
        hashes = self._hashed(obs, lead)
        rows = np.empty(len(hashes), np.int64)
        look_up(self._slots, self._pool["key"], hashes, rows)
        return rows

    def enter(self, obs: Array, lead: int = 2) -> Array:
        """Rows of observations, int64 (B,); new ones get the next rows, in order."""
        hashes = self._hashed(obs, lead)
        rows = np.empty(len(hashes), np.int64)
        done = 0
        while True:
            done, self._pool.count = enter_all(self._slots, self._pool["key"], self._pool.count, hashes, done, rows)
            if done == len(hashes):
                return rows
            self._pool.reserve(self._pool.count + 1)
            self._index()

    def _index(self) -> None:
        """All rows anew into slots, twice as many as there is room for rows."""
        self._slots = np.full(2 * self._pool.room, UNKNOWN, np.int64)
        keys, rows = self._pool["key"][: self.count, 0].copy(), np.empty(self.count, np.int64)
        _, found = enter_all(self._slots, self._pool["key"], 0, keys, 0, rows)
        if found < self.count:
            raise ValueError("two rows of a table have the same key: is the checkpoint whole?")

    def values(self, column: str, obs: Array, initial: float) -> Array:
        """A column's numbers for observations (N, A, ...), float64 (B, width): `initial` where there is no row. Enters none."""
        rows = self.find(obs)
        values: Array = self._pool[column][rows]
        values[rows == UNKNOWN] = initial
        return values

    def moves(self, batch: Rollout, values: tuple[str, ...] = ("q",)) -> Moves:
        """The transitions of a rollout; enters all that was seen.

        With action masks the columns `values` hold -inf where an action was never legal: no maximum finds it, and an
        expectation leaves it out.
        """
        steps, num_envs, agents = batch.reward.shape
        streams = num_envs * agents
        row = self._enter_legal(batch.obs, 3, batch.mask, values).reshape(steps, streams)
        last = self._enter_legal(batch.last_obs, 2, batch.last_mask, values)
        after = np.concatenate((row[1:], last.reshape(1, streams)))
        by_env = after.reshape(steps, num_envs, agents)
        if batch.truncated.any():
            by_env[batch.truncated] = self._enter_legal(batch.final_obs, 2, batch.final_mask, values).reshape(-1, agents)
        by_env[batch.terminated] = UNKNOWN
        ended = np.repeat(batch.terminated | batch.truncated, agents, 1)
        shape = steps, streams
        return Moves(row, batch.action.reshape(shape), batch.reward.reshape(shape), after, ended)

    def _enter_legal(self, obs: Array, lead: int, mask: Array | None, values: tuple[str, ...]) -> Array:
        """`enter`, and what `mask` (..., actions) says of the rows into the columns `values`."""
        before, rows = self.count, self.enter(obs, lead)
        if mask is None or not values:
            return rows
        unique, place = np.unique(rows, return_inverse=True)
        legal = np.zeros((len(unique), mask.shape[-1]), np.bool_)
        np.logical_or.at(legal, place, mask.reshape(len(rows), -1))
        for name in values:
            old, initial = self._pool[name][unique], self._pool.initial(name)
            never = np.isneginf(old)
            new = (unique >= before)[:, None]
            self._pool[name][unique] = np.where(legal, np.where(never, initial, old), np.where(new, -np.inf, old))
        return rows

    def state(self) -> dict[str, Array]:
        """The rows, for checkpoints."""
        return self._pool.state("table/")

    def load(self, state: dict[str, Array]) -> None:
        self._pool.load(state, "table/")
        self._index()


def check_indices(state: dict[str, Array], **bounds: Any) -> None:
    """Raise ValueError where numbers that kernels use as indices are outside 0..bound-1, UNKNOWN aside.

    `bounds`: name in `state`, its slash written __, -> bound. Kernels do not look: a stranger's file must not harm.
    """
    for name, bound in bounds.items():
        name = name.replace("__", "/")
        values = state[name]
        if values.size and not ((values >= UNKNOWN) & (values < bound)).all():
            raise ValueError(f"{name} points beyond its table: is the checkpoint whole?")


def discrete(name: str, spaces: Spaces) -> int:
    """How many actions there are. Raises ValueError, one line, where they cannot be counted."""
    if not isinstance(spaces.action, gymnasium.spaces.Discrete):
        raise ValueError(f"agent {name}: a table has a column for each action, and {spaces.action} has no such: take agent ppo")
    return int(spaces.action.n)


def others(name: str, spaces: Spaces, opponent: bool | None) -> slice | None:
    """Where to blank observations so that what other players did last is no part of a state; None: nowhere.

    Raises ValueError, one line, where `opponent` is set and the world does not show it.
    """
    if opponent is None:
        return None
    shown: slice | None = getattr(spaces.world, "others_seen", None)
    if shown is None:
        raise ValueError(f"agent {name}: opponent={opponent}: this world shows nobody's last action apart: leave opponent out")
    return None if opponent else shown


@kernel
def hash_words(words: Array, out: Array) -> None:
    """Each row of `words`, uint64 (B, W), as 64 well-mixed bits: multiply and fold, as splitmix64 does."""
    for b in range(words.shape[0]):
        h = GOLDEN
        for j in range(words.shape[1]):
            h = (h ^ words[b, j]) * MIX_1
            h ^= h >> S32
            h *= GOLDEN
            h ^= h >> S29
        out[b] = h


@kernel
def look_up(slots: Array, key: Array, hashes: Array, rows: Array) -> None:
    mask = np.uint64(slots.shape[0] - 1)
    for b in range(hashes.shape[0]):
        slot = np.int64(hashes[b] & mask)
        while slots[slot] >= 0 and key[slots[slot], 0] != hashes[b]:
            slot = (slot + 1) & np.int64(mask)
        rows[b] = slots[slot]


@kernel
def enter_all(slots: Array, key: Array, count: int, hashes: Array, first: int, rows: Array) -> tuple[int, int]:
    """Rows of `hashes` from `first` on. Returns how many are done, fewer where the table is full, and the count of rows."""
    mask = np.uint64(slots.shape[0] - 1)
    for b in range(first, hashes.shape[0]):
        slot = np.int64(hashes[b] & mask)
        while slots[slot] >= 0 and key[slots[slot], 0] != hashes[b]:
            slot = (slot + 1) & np.int64(mask)
        if slots[slot] < 0:
            if count == key.shape[0]:
                return b, count
            key[count, 0] = hashes[b]
            slots[slot] = count
            count += 1
        rows[b] = slots[slot]
    return hashes.shape[0], count
