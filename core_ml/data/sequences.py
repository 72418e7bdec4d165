"""Replay of sequences: steps of M streams in flat arrays, drawn as runs of L steps that mark where episodes begin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...store.arrays import Array

FACTS = ("obs", "action", "reward", "terminated", "is_first")


class Sequences(NamedTuple):
    """B runs of L steps. Row t holds an observation, the action there, and the reward and termination that followed."""

    obs: Array  # (B, L, *observation)
    action: Array  # (B, L, *action)
    reward: Array  # float32 (B, L)
    terminated: Array  # bool (B, L): the rules ended the episode; truncations are not marked
    is_first: Array  # bool (B, L): an episode begins with this observation, however the one before ended


class SequenceReplay:
    """The last `buffer_size` steps of M streams (each agent of each environment is one), written in turns.

    Rows are numbered as they come; row i lies at i modulo `buffer_size`, and row i + M is the next step of the same stream, so
    L steps are L rows M apart. `shape` and `dtype` are those of an observation, `action_shape` and `action_dtype` of an
    action.
    """

    def __init__(
        self, buffer_size: int, shape: tuple[int, ...], dtype: npt.DTypeLike,
        action_shape: tuple[int, ...] = (), action_dtype: npt.DTypeLike = np.int64,
    ) -> None:  # fmt: skip
        self.buffer_size = buffer_size
        self.obs, self.action = np.zeros((buffer_size, *shape), dtype), np.zeros((buffer_size, *action_shape), action_dtype)
        self.reward = np.zeros(buffer_size, np.float32)
        self.terminated, self.is_first = np.zeros(buffer_size, np.bool_), np.zeros(buffer_size, np.bool_)
        self.head = self.streams = 0  # rows written in all; M
        # Whether the last step of stream j ended its episode; room for any M, so that states of equal sizes look alike.
        self.ended = np.ones(buffer_size, np.bool_)

    def add(self, obs: Array, action: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """T steps of M streams: obs (T, M, *observation), action (T, M, *action), the others (T, M). The first step that a
        stream ever takes begins an episode; after that one begins where one ended."""
        steps, streams = reward.shape
        if self.streams not in (0, streams):
            raise ValueError(f"a replay of {self.streams} streams cannot take {streams}: make a new agent")
        if self.buffer_size < steps * streams:
            raise ValueError(
                f"a replay of {self.buffer_size:,} steps is too small for {steps} steps of {streams} streams: raise "
                f"buffer_size to {steps * streams:,} or more"
            )
        self.streams = streams
        ended = terminated | truncated
        is_first = np.concatenate([self.ended[None, :streams], ended[:-1]])
        rows, first = steps * streams, self.head % self.buffer_size
        fit = min(rows, self.buffer_size - first)  # before the end of the arrays; the others go to their beginning
        for name, new in zip(FACTS, (obs, action, reward, terminated, is_first), strict=True):
            here = getattr(self, name)
            new = new.reshape(rows, *here.shape[1:])
            here[first : first + fit], here[: rows - fit] = new[:fit], new[fit:]
        self.ended[:streams] = ended[-1]
        self.head += rows

    @property
    def steps(self) -> int:
        """Steps of one stream that are stored in whole."""
        return min(self.head, self.buffer_size) // self.streams if self.streams else 0

    def draw(self, rng: np.random.Generator, size: int, length: int) -> Sequences:
        """`size` sequences of `length` steps, each that is stored equally likely. Raises ValueError where none is that long."""
        if self.steps < length or not length:
            raise ValueError(f"sequences of {length} steps: the replay holds {self.steps} of each stream")
        low = max(self.head - self.buffer_size, 0)
        first = rng.integers(low, self.head - (length - 1) * self.streams, size=size)
        return self.at(first, length)

    def at(self, first: Array, length: int) -> Sequences:
        """The sequences that begin with the rows of these numbers, int64 (B,)."""
        rows = (first[:, None] + np.arange(length) * self.streams) % self.buffer_size  # (B, L)
        return Sequences(*(getattr(self, name)[rows] for name in FACTS))

    def state(self) -> dict[str, Array]:
        """Everything as arrays by name; large ones are this object's arrays, not copied."""
        counters = {"counters": np.array([self.head, self.streams], np.int64), "ended": self.ended}
        return {name: getattr(self, name) for name in FACTS} | counters

    def load(self, state: dict[str, Array]) -> None:
        """Put back what `state` gave."""
        for name in (*FACTS, "ended"):
            getattr(self, name)[...] = state[name]
        self.head, self.streams = (int(x) for x in state["counters"])
