"""Isolation forest (Liu, Ting & Zhou 2008): what random cuts part from all the rest soon, is odd."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...store.arrays import Array
from ..component import component
from ..observations import Observation
from .conformal import Conformal, calibrate_threshold, flag_by_threshold
from .protocol import DetectorConfig, ObservedSteps, with_threshold, without_threshold

LEAF = -1  # in `feature`


@component("detector", "isolation")
class Isolation:
    """Score 2^(-E h(x) / c(n)) in (0, 1): h is how many cuts of a tree part x from the others of its sample (section 2.3).

    scikit-learn grows the trees; they are kept, and walked through, as arrays: T trees of M nodes. Each update puts the
    observations into a sample of `memory`, each one ever seen as likely to be in it as any other (algorithm R: Vitter 1985),
    and grows the forest anew. Untrained it gives 1 to everything.
    """

    class Config(DetectorConfig):
        trees: int = Field(100, ge=1, le=10_000, description="trees of the forest")
        sample: int = Field(256, ge=2, le=65_536, description="observations that a tree is grown from")
        memory: int = Field(4096, ge=2, description="observations kept")
        grid_input: Literal["one-hot", "scaled"] = Field(
            "one-hot", description="a grid as planes of 0 and 1, or code / largest code"
        )

    def __init__(self, config: Config, observation: Observation, seed: int = 0) -> None:
        self.config, self.observation = config, observation
        self.one_hot = config.grid_input == "one-hot"
        self.threshold = Conformal(config.alpha)
        dtype = np.float32 if observation.kind == "vector" else np.uint8
        self.kept, self.seen = np.zeros((config.memory, *observation.shape), dtype), np.zeros((), np.int64)
        shape = config.trees, 2 * config.sample - 1
        self.feature, self.cut = np.full(shape, LEAF, np.int32), np.zeros(shape)
        self.left, self.right = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.length = np.zeros(shape)  # h of what ends in a leaf, over c(n)

    def update(self, seen: ObservedSteps, generator: torch.Generator) -> dict[str, float]:
        self.observation.check(seen.obs)
        self._keep(seen.obs.numpy(), generator)
        rows = self._numbers(torch.from_numpy(self.kept[: int(self.seen)]))
        stream = int(torch.randint(2**31 - 1, (1,), generator=generator))
        if len(rows) > 1:
            self._grow(rows, stream)
        return {"rows": float(len(rows))}

    def _keep(self, obs: Array, generator: torch.Generator) -> None:
        """The k-th observation ever goes to place k while there is room, then to a random place of k, if it is one of ours."""
        number = int(self.seen) + np.arange(len(obs))
        drawn = (torch.rand(len(obs), generator=generator, dtype=torch.float64).numpy() * (number + 1)).astype(np.int64)
        place = np.where(number < len(self.kept), number, drawn)
        for k in np.flatnonzero(place < len(self.kept)):  # in order: the later of two at one place stays
            self.kept[place[k]] = obs[k]
        self.seen += len(obs)

    def _grow(self, rows: Array, stream: int) -> None:
        from sklearn.ensemble import IsolationForest

        o = self.config
        forest = IsolationForest(n_estimators=o.trees, max_samples=min(o.sample, len(rows)), random_state=stream, n_jobs=1).fit(
            rows
        )
        for arrays in (self.cut, self.left, self.right, self.length):
            arrays[...] = 0
        self.feature[...] = LEAF
        for t, grown in enumerate(forest.estimators_):
            tree = grown.tree_
            n, inner = tree.node_count, tree.children_left >= 0
            self.feature[t, :n] = np.where(inner, tree.feature, LEAF)
            self.cut[t, :n] = np.where(inner, tree.threshold, 0.0)
            self.left[t, :n], self.right[t, :n] = tree.children_left * inner, tree.children_right * inner
            ends = depths(tree) + average_path(tree.n_node_samples)
            self.length[t, :n] = np.where(inner, 0.0, ends) / average_path(np.array([forest.max_samples_]))[0]

    def score(self, seen: ObservedSteps) -> Array:
        rows, tree = self._numbers(seen.obs), np.arange(self.config.trees)
        node = np.zeros((len(rows), len(tree)), np.int64)  # (B, T): where each observation is in each tree
        while True:
            feature = self.feature[tree, node]
            inner = feature != LEAF
            if not inner.any():
                break
            value = np.take_along_axis(rows, np.maximum(feature, 0), 1)
            after = np.where(value <= self.cut[tree, node], self.left[tree, node], self.right[tree, node])
            node = np.where(inner, after, node)
        found: Array = 2.0 ** -self.length[tree, node].mean(1)
        return found

    def _numbers(self, obs: Tensor) -> Array:
        rows: Array = self.observation.rows(obs, self.one_hot).numpy()
        return rows

    calibrate, flag = calibrate_threshold, flag_by_threshold

    def _own(self) -> dict[str, Array]:
        return {
            "kept": self.kept, "seen": self.seen, "feature": self.feature, "cut": self.cut, "left": self.left,
            "right": self.right, "length": self.length,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Array]:
        return with_threshold(self._own(), self.threshold)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Put back what `state_dict` gave. Raises ValueError for other shapes, and for trees that lead nowhere."""
        own = without_threshold(state, self._own(), self.threshold, "detector isolation")
        inner = own["feature"] != LEAF
        columns, number = int(np.prod(self.observation.planes(self.one_hot))), np.arange(own["feature"].shape[1])
        for name, low, high in (("feature", 0, columns), ("left", number + 1, len(number)), ("right", number + 1, len(number))):
            if ((own[name] < low) | (own[name] >= high))[inner].any():
                raise ValueError(f"detector isolation: {name} leads out of its tree: is the checkpoint whole?")
        for name, array in self._own().items():
            array[...] = own[name]


def average_path(n: Array) -> Array:
    """c(n) = 2 H(n - 1) - 2 (n - 1) / n: the mean path to a leaf among n (eq. 1), with c(1) = 0, c(2) = 1, and
    H(k) = ln k + Euler's constant for more."""
    many = np.maximum(n, 3).astype(np.float64)
    found: Array = np.where(n > 2, 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many, np.maximum(n - 1.0, 0.0))
    return found


def depths(tree: Any) -> Array:
    """Edges between the root of a scikit-learn tree and each node, int64 (nodes,); parents come before their children."""
    depth = np.zeros(tree.node_count, np.int64)
    for node in np.flatnonzero(tree.children_left >= 0):
        depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
    return depth
