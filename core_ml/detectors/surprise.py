"""Surprise at what an action led to, by counts: for shifts that no single observation shows, such as ground that slips more."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...native.splitmix64 import GOLDEN, MIX_1
from ...store.arrays import Array
from ..component import component
from ..observations import Observation
from .conformal import Conformal, calibrate_threshold, flag_by_threshold
from .protocol import DetectorConfig, ObservedSteps, with_threshold, without_threshold


@component("detector", "surprise")
class Surprise:
    """Score -ln p(x' | x, a) in nats, with p(x' | x, a) = (n(x, a, x') + c / (D + 1)) / (n(x, a) + c).

    n are counts of the steps it learned from, c is `prior`, D how many different observations steps led to: the mean of a
    Dirichlet posterior. What never happened where much did is the most surprising; a pair (x, a) that never came up says
    ln (D + 1) whatever follows. So observations must come again: grids and images of worlds with fixed boards. The first step
    of an episode follows nothing: NaN.

    Tables are sorted 64-bit keys of the observations' bytes with their counts; they grow. Raises ValueError for vectors.
    """

    class Config(DetectorConfig):
        prior: float = Field(1.0, gt=0, description="how many steps the prior weighs as much as")

    def __init__(self, config: Config, observation: Observation, seed: int = 0) -> None:
        if observation.kind == "vector":
            raise ValueError(
                "detector surprise counts observations that come again, and these are vectors: take linear-surprise"
            )
        self.config, self.observation = config, observation
        self.threshold = Conformal(config.alpha)
        self.pairs, self.triples, self.ends = (np.zeros(0, np.uint64) for _ in range(3))  # keys, ascending
        self.pair_counts, self.triple_counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def update(self, seen: ObservedSteps, generator: torch.Generator) -> dict[str, float]:
        pair, triple, end = self._keys(seen.rows(~seen.is_first))
        self.pairs, self.pair_counts = counted(self.pairs, self.pair_counts, pair)
        self.triples, self.triple_counts = counted(self.triples, self.triple_counts, triple)
        self.ends = np.union1d(self.ends, end)
        return {"pairs": float(len(self.pairs)), "triples": float(len(self.triples))}

    def score(self, seen: ObservedSteps) -> Array:
        pair, triple, _ = self._keys(seen)
        c = self.config.prior
        times = look_up(self.triples, self.triple_counts, triple) + c / (len(self.ends) + 1)
        found: Array = np.log(look_up(self.pairs, self.pair_counts, pair) + c) - np.log(times)
        return np.where(seen.is_first.numpy(), np.nan, found)

    def _keys(self, seen: ObservedSteps) -> tuple[Array, Array, Array]:
        """Keys of (x, a), of (x, a, x') and of x', uint64 (B,)."""
        self.observation.check(seen.obs)
        begin = np.full(len(seen.obs), GOLDEN)
        pair = hashed(seen.before, hashed(seen.action, begin))
        return pair, hashed(seen.obs, pair), hashed(seen.obs, begin)

    calibrate, flag = calibrate_threshold, flag_by_threshold

    def _own(self) -> dict[str, Array]:
        return {
            "pairs": self.pairs, "pair_counts": self.pair_counts, "triples": self.triples,
            "triple_counts": self.triple_counts, "ends": self.ends,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Array]:
        return with_threshold(self._own(), self.threshold)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        own = without_threshold(state, self._own(), self.threshold, "detector surprise", growing=True)
        for keys, counts in (("pairs", "pair_counts"), ("triples", "triple_counts")):
            if len(own[keys]) != len(own[counts]):
                raise ValueError(f"detector surprise: {len(own[keys])} {keys}, {len(own[counts])} counts: is it whole?")
        for name, array in own.items():
            setattr(self, name, array.copy())


def hashed(rows: Tensor, begin: Array) -> Array:
    """64 well-mixed bits of each row's bytes, uint64 (B,), continued from `begin` (B,): multiply and fold, as splitmix64 does.

    Two of a million different rows share theirs with a chance of 3e-8.
    """
    if not len(rows):
        return begin.copy()
    data = np.ascontiguousarray(rows.numpy()).reshape(len(rows), -1)
    octets = data.view(np.uint8)
    padded = np.zeros((len(rows), -(-octets.shape[1] // 8) * 8), np.uint8)
    padded[:, : octets.shape[1]] = octets
    found = begin.copy()
    for word in padded.view(np.uint64).T:
        found = (found ^ word) * MIX_1
        found ^= found >> np.uint64(32)
        found *= GOLDEN
        found ^= found >> np.uint64(29)
    return found


def counted(keys: Array, counts: Array, more: Array) -> tuple[Array, Array]:
    """Ascending `keys` and their counts after each of `more` came up once."""
    new, times = np.unique(more, return_counts=True)
    both, where = np.unique(np.concatenate([keys, new]), return_inverse=True)
    total = np.zeros(len(both), np.int64)
    np.add.at(total, where, np.concatenate([counts, times]))
    return both, total


def look_up(keys: Array, counts: Array, wanted: Array) -> Array:
    """The counts of `wanted`, int64 (B,); 0 for those that `keys`, ascending, do not have."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, counts[at], 0)
