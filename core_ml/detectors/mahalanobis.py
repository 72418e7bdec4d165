"""Mahalanobis distance (Mahalanobis 1936) to what was learned from, on observations or on the features of an encoder."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits
from torch import Tensor

from ...store.arrays import Array
from ..component import component
from ..observations import Observation
from ..optim.parallel import one_thread_each
from .conformal import Conformal, calibrate_threshold, flag_by_threshold
from .protocol import DetectorConfig, ObservedSteps, with_threshold, without_threshold

MOST = 4096  # numbers in an observation: the covariance has their square


@component("detector", "mahalanobis")
class Mahalanobis:
    """Score of an observation's numbers x: sqrt((x - m)' C^-1 (x - m)), C the shrunken covariance of all it learned from.

    C = (1 - rho) S + rho tr(S) / p I. What never varied before has the variance rho tr(S) / p, so that it is far away where it
    varies now. Batches are merged exactly, so parts and the whole give the same.

    `encoder`: judge its codes instead (`encode`, `size`; see coder.py). Its parameters are its owner's to save. Raises
    ValueError where there are more than 4,096 numbers.
    """

    class Config(DetectorConfig):
        shrinkage: float | None = Field(None, ge=0, le=1, description="rho; null: oracle approximating shrinkage")
        grid_input: Literal["one-hot", "scaled"] = Field(
            "one-hot", description="a grid as planes of 0 and 1, or code / largest code"
        )

    def __init__(self, config: Config, observation: Observation, seed: int = 0, encoder: Any = None) -> None:
        self.config, self.observation, self.encoder = config, observation, encoder
        self.one_hot = config.grid_input == "one-hot"
        size = int(np.prod(observation.planes(self.one_hot))) if encoder is None else encoder.size
        if size > MOST:
            raise ValueError(f"detector mahalanobis: {size} numbers an observation, at most {MOST}: give it an encoder")
        self.count, self.mean, self.scatter = np.zeros(()), np.zeros(size), np.zeros((size, size))
        self.threshold = Conformal(config.alpha)
        self.whiten = torch.eye(size, dtype=torch.float64)  # W with W' W = C^-1

    def update(self, seen: ObservedSteps, generator: torch.Generator) -> dict[str, float]:
        merge(self.count, self.mean, self.scatter, self._numbers(seen.obs).numpy())
        return {"shrinkage": self._invert(), "rows": float(self.count)}

    def score(self, seen: ObservedSteps) -> Array:
        off = self._numbers(seen.obs) - torch.from_numpy(self.mean)
        found: Array = (off @ self.whiten.T).norm(dim=1).numpy()
        return found

    calibrate, flag = calibrate_threshold, flag_by_threshold

    def _numbers(self, obs: Tensor) -> Tensor:
        """(B, p) float64."""
        one_thread_each()
        if self.encoder is not None:
            with torch.no_grad():
                return torch.as_tensor(self.encoder.encode(obs)).double()
        return self.observation.rows(obs, self.one_hot).double()

    def _invert(self) -> float:
        """C^-1 of the moments; the shrinkage."""
        covariance = self.scatter / max(float(self.count), 1.0)
        rho = oas(covariance, float(self.count)) if self.config.shrinkage is None else self.config.shrinkage
        self.whiten = torch.from_numpy(whitening(shrunk(covariance, rho)))
        return rho

    def _own(self) -> dict[str, Array]:
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def state_dict(self) -> dict[str, Array]:
        return with_threshold(self._own(), self.threshold)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        own = without_threshold(state, self._own(), self.threshold, "detector mahalanobis")
        for name, array in self._own().items():
            array[...] = own[name]
        if self.count:
            self._invert()


def merge(count: Array, mean: Array, scatter: Array, rows: Array) -> None:
    """Count rows (B, p) in `count` (), `mean` (p,) and `scatter` (p, p), the sum of (x - m)(x - m)', in place.

    Exact whatever the parts (Chan, Golub & LeVeque 1979).
    """
    n = len(rows)
    if not n:
        return
    total, delta = count + n, rows.mean(0) - mean
    off = rows - rows.mean(0)
    with threadpool_limits(1, "blas"):  # the number of threads may change the last bits
        scatter += off.T @ off
    scatter += np.outer(delta, delta) * (count * n / total)
    mean += delta * n / total
    count[...] = total


def oas(covariance: Array, n: float) -> float:
    """The shrinkage that is best for normal rows, estimated from the covariance (p, p) of n rows alone.

    rho = min(1, (tr(S^2) / p^2 + (tr S / p)^2) / ((n + 1) (tr(S^2) / p^2 - (tr S)^2 / p^3))): Chen, Wiesel, Eldar & Hero 2010,
    "Shrinkage algorithms for MMSE covariance estimation", eq. 23, without its terms in 2 / p, as scikit-learn has it.
    """
    p = len(covariance)
    square, mean = float(np.square(covariance).mean()), float(np.trace(covariance)) / p
    beside = (n + 1) * (square - mean**2 / p)
    return 1.0 if beside <= 0 else min(1.0, (square + mean**2) / beside)


def shrunk(covariance: Array, rho: float) -> Array:
    """(1 - rho) S + rho tr(S) / p I; at least 1e-9 on the diagonal, so that it has an inverse."""
    p = len(covariance)
    found: Array = (1 - rho) * covariance + (rho * np.trace(covariance) / p + 1e-9) * np.eye(p)
    return found


def whitening(covariance: Array) -> Array:
    """W (p, p) with W' W = C^-1: the inverse of C's Cholesky factor."""
    with threadpool_limits(1, "blas"):
        found: Array = np.linalg.inv(np.linalg.cholesky(covariance))
    return found
