"""Replay: transitions in flat arrays, drawn uniformly, by priority, or newest first; n-step returns are computed when drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...store.arrays import Array
from ..maths.returns import n_step


class Sample(NamedTuple):
    """K minibatches of B transitions: places in the replay's arrays, and the numbers of the loss."""

    row: Array  # int64 (K, B): place in `obs`
    next_row: Array  # int64 (K, B): place in `next_obs`
    action: Array  # int64 (K, B)
    return_: Array  # float32 (K, B): discounted rewards of up to n steps
    discount: Array  # float32 (K, B): of the next value; 0 where the episode terminated
    weight: Array  # float32 (K, B): of each transition in the loss

    def parts(self, first: int, last: int) -> Sample:
        """Minibatches first .. last - 1."""
        return Sample(*(array[first:last] for array in self))


class Learned(NamedTuple):
    """Results of learning from K minibatches of B."""

    error: Array  # float32 (K, B): temporal differences
    means: Array  # float64 (3,): loss, value of the sampled actions, |temporal difference|
    norms: Array  # float64 (K,): of the gradients before clipping; shorter if one was not finite


class Replay:
    """The last `buffer_size` transitions of M streams (each agent of each environment is one), written in turns.

    Rows are numbered as they come; row i lies at i modulo `buffer_size`, and row i + M is the next step of the same agent. So
    n steps are n rows M apart, and a row may be drawn once the n - 1 rows after it are there. `priority`: the exponent of
    prioritised replay (Schaul et al. 2016, arXiv:1511.05952), 0 for uniform.
    """

    def __init__(
        self, buffer_size: int, inputs: int, dtype: npt.DTypeLike, n: int = 1, priority: float = 0.0, masked: int = 0
    ) -> None:
        self.buffer_size, self.n, self.priority = buffer_size, n, priority
        self.obs, self.next_obs = np.zeros((buffer_size, inputs), dtype), np.zeros((buffer_size, inputs), dtype)
        self.action, self.reward = np.zeros(buffer_size, np.int64), np.zeros(buffer_size, np.float32)
        # bool (buffer_size, actions): legal actions of `next_obs`; None without action masks (`masked` is 0, else their number)
        self.next_mask: Array | None = np.ones((buffer_size, masked), np.bool_) if masked else None
        self.terminated, self.truncated = np.zeros(buffer_size, np.bool_), np.zeros(buffer_size, np.bool_)
        self.head = self.streams = self.latest = 0  # rows written in all; M; rows that became ready by the last `add`
        self.tree = SumTree(buffer_size) if priority else None
        self.largest = 1.0  # of all priorities so far

    def add(
        self, obs: Array, action: Array, reward: Array, next_obs: Array, terminated: Array, truncated: Array,
        next_mask: Array | None = None,
    ) -> None:  # fmt: skip
        """T steps of M streams: obs and next_obs (T, M, D), the others (T, M). `next_obs` is the last observation of an
        episode that was truncated; where an episode terminated it is not used."""
        steps, streams = reward.shape
        if self.streams not in (0, streams):
            raise ValueError(f"a replay of {self.streams} streams cannot take {streams}: make a new agent")
        if self.buffer_size < (steps + self.n) * streams:
            raise ValueError(
                f"a replay of {self.buffer_size:,} transitions is too small for {steps} steps of {streams} environments and "
                f"returns of {self.n} steps: raise agent.buffer_size to {(steps + self.n) * streams:,} or more"
            )
        self.streams = streams
        before = self.ready[1]
        at = (self.head + np.arange(steps * streams)) % self.buffer_size
        for here, new in (
            (self.obs, obs), (self.next_obs, next_obs), (self.action, action), (self.reward, reward),
            (self.terminated, terminated), (self.truncated, truncated),
        ):  # fmt: skip
            here[at] = new.reshape(len(at), *here.shape[1:])
        if self.next_mask is not None:
            if next_mask is None:
                raise ValueError("a replay with action masks cannot take steps without them")
            self.next_mask[at] = next_mask.reshape(len(at), -1)
        self.head += len(at)
        _, high = self.ready
        self.latest = high - before
        if self.tree:
            self.tree.set(at, np.zeros(len(at)))
            fresh = np.arange(before, high) % self.buffer_size
            self.tree.set(fresh, np.full(len(fresh), self.largest**self.priority))

    @property
    def ready(self) -> tuple[int, int]:
        """Numbers low .. high - 1 of the rows that may be drawn."""
        return max(self.head - self.buffer_size, 0), max(self.head - (self.n - 1) * self.streams, 0)

    def uniform(self, rng: np.random.Generator, parts: int, size: int, gamma: float) -> Sample:
        """`parts` minibatches of `size`, each transition equally likely."""
        return self._sample(rng.integers(*self.ready, size=(parts, size)), gamma)

    def newest(self, parts: int, size: int, gamma: float) -> Sample:
        """Without replay: the rows that became ready by the last `add`, in order, in `parts` minibatches. Minibatch k ends
        after the share (k + 1) / `parts` of them, and holds the newest `size` transitions up to there."""
        low, high = self.ready
        ends = high - self.latest + -(-self.latest * np.arange(1, parts + 1) // parts)
        return self._sample(np.maximum(ends[:, None] - np.arange(size, 0, -1), low), gamma)

    def prioritised(self, rng: np.random.Generator, size: int, gamma: float, beta: float) -> Sample:
        """One minibatch, (1, `size`): transition i with probability P(i) = p_i^alpha / sum_k p_k^alpha, one in each of `size`
        equal parts of the sum, weighted by (N P(i))^-beta over the largest such weight in the minibatch (section 3.4)."""
        assert self.tree is not None
        low, high = self.ready
        slot = self.tree.find((np.arange(size) + rng.random(size)) / size)
        weight = ((high - low) * self.tree.share(slot)) ** -beta
        return self._sample(slot[None], gamma, (weight / weight.max()).astype(np.float32)[None])

    def update(self, sample: Sample, error: Array) -> None:
        """New priorities p = |error| + 1e-6 of a sample (proportional variant, section 3.3)."""
        assert self.tree is not None
        size = np.abs(error.reshape(-1).astype(np.float64)) + 1e-6
        self.largest = max(self.largest, float(size.max()))
        self.tree.set(sample.row.reshape(-1), size**self.priority)

    def _sample(self, number: Array, gamma: float, weight: Array | None = None) -> Sample:
        steps = (number[..., None] + np.arange(self.n) * self.streams) % self.buffer_size  # (K, B, n)
        return_, discount, last = n_step(self.reward[steps], self.terminated[steps], self.truncated[steps], gamma)
        row = steps[..., 0]
        next_row = np.take_along_axis(steps, last[..., None], -1)[..., 0]
        weight = np.ones(row.shape, np.float32) if weight is None else weight
        return Sample(row, next_row, self.action[row], return_, discount, weight)

    def state(self) -> dict[str, Array]:
        """Everything as arrays by name; large ones are this object's arrays, not copied."""
        names = ("obs", "next_obs", "action", "reward", "terminated", "truncated")
        state = {name: getattr(self, name) for name in names}
        if self.next_mask is not None:
            state["next_mask"] = self.next_mask
        state["counters"] = np.array([self.head, self.streams, self.latest], np.int64)
        if self.tree:
            state |= {"priority": self.tree.leaves, "largest": np.array(self.largest)}
        return state

    def load(self, state: dict[str, Array]) -> None:
        """Put back what `state` gave."""
        for name in ("obs", "next_obs", "action", "reward", "terminated", "truncated"):
            getattr(self, name)[...] = state[name]
        if self.next_mask is not None:
            self.next_mask[...] = state["next_mask"]
        self.head, self.streams, self.latest = (int(x) for x in state["counters"])
        if self.tree:
            self.tree.set(np.arange(self.buffer_size), state["priority"])
            self.largest = float(state["largest"])


class SumTree:
    """`size` weights, all zero at first, in a binary tree of sums: node k is the sum of its children 2 k and 2 k + 1
    (Schaul et al. 2016, appendix B.2.1). Sums are recomputed from their two children, so that rounding errors do not
    accumulate."""

    def __init__(self, size: int) -> None:
        self.depth = max(size - 1, 1).bit_length()
        self.first = 1 << self.depth
        self.nodes = np.zeros(2 * self.first)
        self.leaves = self.nodes[self.first : self.first + size]

    def set(self, place: Array, weight: Array) -> None:
        self.leaves[place] = weight
        node = place + self.first
        for _ in range(self.depth):
            node = node >> 1
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, share: Array) -> Array:
        """Where the running sum of weights reaches `share` in [0, 1) of the whole; never a place of weight 0."""
        level = share * self.nodes[1]
        node = np.ones(share.shape, np.int64)
        for _ in range(self.depth):
            node = 2 * node
            left = self.nodes[node]
            right = (level >= left) & (self.nodes[node + 1] > 0)
            level = level - right * left
            node = node + right
        return node - self.first

    def share(self, place: Array) -> Array:
        """Weights as parts of their sum."""
        share: Array = self.leaves[place] / self.nodes[1]
        return share
