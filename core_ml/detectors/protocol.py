"""Detectors: does what is seen still look like what was learned from? The interface, and what all detectors share.

One detector, one file: `reconstruction`, `mahalanobis`, `isolation` judge an observation, `surprise` and `linear_surprise` the
step that led to it. Scores of steps go through `evidence.py` to one number an episode, and that through `conformal.py` to a
threshold.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig
from .conformal import Conformal


class ObservedSteps(NamedTuple):
    """B steps: what is seen now, and what was seen and done a step before."""

    obs: Tensor  # (B, *shape), as an `Observation` has them
    before: Tensor  # (B, *shape)
    action: Tensor  # int64 (B,) or float32 (B, D)
    is_first: Tensor  # bool (B,): an episode begins; `before` and `action` mean nothing

    def rows(self, which: Tensor) -> ObservedSteps:
        return ObservedSteps(*(part[which] for part in self))


class DetectorConfig(ComponentConfig):
    """Options of every detector."""

    alpha: float = Field(0.05, gt=0, lt=1, description="largest share of false alarms among what `calibrate` was given alike")


class Detector(Protocol):
    """High scores mean: unlike what it learned from. A detector that has not been updated is the untrained arm."""

    threshold: Conformal

    def update(self, seen: ObservedSteps, generator: torch.Generator) -> dict[str, float]:
        """Learn from B steps; metrics. All of a training set at once, or part by part."""
        ...

    def score(self, seen: ObservedSteps) -> Array:
        """float64 (B,). NaN: no opinion, as of the first step of an episode where steps are judged."""
        ...

    def calibrate(self, scores: Array) -> float:
        """Set the threshold by exchangeable scores (n,) of what it has not learned from: one for each episode."""
        ...

    def flag(self, scores: Array) -> Array:
        """Which of such scores are alarms; nothing before `calibrate`."""
        ...

    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, state: dict[str, Array]) -> None: ...


def auroc(usual: Array, odd: Array) -> float:
    """Area under the ROC curve: P(score of an odd one > score of a usual one) + P(equal) / 2 (Hanley & McNeil 1982).

    By ranks, equal ones sharing theirs: (R - m (m + 1) / 2) / (n m) for the sum R of the m odd ones' ranks (Mann & Whitney
    1947).
    """
    both = np.concatenate([usual, odd])
    _, where, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    n, m = len(usual), len(odd)
    return float((ranks[where[n:]].sum() - m * (m + 1) / 2) / (n * m))


def with_threshold(own: dict[str, Array], threshold: Conformal) -> dict[str, Array]:
    """A detector's arrays, copied, and its threshold's: the state."""
    return {name: array.copy() for name, array in own.items()} | {
        f"threshold.{name}": array for name, array in threshold.state_dict().items()
    }


def without_threshold(
    state: dict[str, Array], own: dict[str, Array], threshold: Conformal, what: str, growing: bool = False
) -> dict[str, Array]:
    """A detector's own arrays out of a state, checked against `own`; `threshold` is put back. Raises ValueError.

    `growing`: the first axis of arrays that have one may have any length.
    """
    mine = {name: array for name, array in state.items() if not name.startswith("threshold.")}
    expected = own
    if growing:
        expected = {
            name: np.empty((len(mine[name]), *array.shape[1:]), array.dtype)
            if array.ndim and name in mine and mine[name].ndim else array
            for name, array in own.items()
        }  # fmt: skip
    check_arrays(mine, expected, what)
    threshold.load_state_dict({name.removeprefix("threshold."): array for name, array in state.items() if name not in mine})
    return mine
