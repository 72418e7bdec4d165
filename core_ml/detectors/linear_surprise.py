"""Surprise at what an action led to, by a linear model with normal noise: the transition detector for vectors."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field

from ...store.arrays import Array
from ..component import component
from ..observations import Observation
from ..optim.parallel import one_thread_each
from .conformal import Conformal, calibrate_threshold, flag_by_threshold
from .mahalanobis import MOST, merge, shrunk
from .protocol import DetectorConfig, ObservedSteps, with_threshold, without_threshold


@component("detector", "linear-surprise")
class LinearSurprise:
    """Score: the Mahalanobis distance of the change x' - x to what the linear model of (x, a) says it is.

    Moments of (x, a, x' - x) are all that is learned, exactly, in any parts: the regression is B = S_di S_ii^-1, what is left
    over has the covariance S_dd - B S_id, shrunken by `shrinkage`. For discrete actions a is one-hot. Changes that are no
    linear function of (x, a) count as noise, and hide smaller shifts. The first step of an episode follows nothing: NaN.

    Raises ValueError for grids and images, whose numbers are names.
    """

    class Config(DetectorConfig):
        actions: int = Field(0, ge=0, le=4096, description="how many discrete actions there are; 0: actions are numbers")
        action_size: int = Field(1, ge=1, description="numbers of an action, where actions are numbers")
        shrinkage: float = Field(1e-3, ge=0, le=1, description="of both covariances")

    def __init__(self, config: Config, observation: Observation, seed: int = 0) -> None:
        if observation.kind != "vector":
            raise ValueError(f"detector linear-surprise is for vectors, these are a {observation.kind}: take surprise")
        self.config, self.observation = config, observation
        self.inputs = observation.size + (config.actions or config.action_size)
        size = self.inputs + observation.size
        if size > MOST:
            raise ValueError(f"detector linear-surprise: {size} numbers a step, at most {MOST}")
        self.count, self.mean, self.scatter = np.zeros(()), np.zeros(size), np.zeros((size, size))
        self.threshold = Conformal(config.alpha)
        self._solve()

    def update(self, seen: ObservedSteps, generator: torch.Generator) -> dict[str, float]:
        merge(self.count, self.mean, self.scatter, self._numbers(seen.rows(~seen.is_first)).numpy())
        self._solve()
        return {"rows": float(self.count), "unexplained": self.unexplained}

    def score(self, seen: ObservedSteps) -> Array:
        off = self._numbers(seen) - torch.from_numpy(self.mean)
        left = off[:, self.inputs :] - off[:, : self.inputs] @ self.slope.T
        found: Array = (left @ self.whiten.T).norm(dim=1).numpy()
        return np.where(seen.is_first.numpy(), np.nan, found)

    def _numbers(self, seen: ObservedSteps) -> torch.Tensor:
        """(B, p) float64: x, a, x' - x."""
        one_thread_each()
        x, after = (self.observation.rows(part, False).double() for part in (seen.before, seen.obs))
        if self.config.actions:
            action = torch.nn.functional.one_hot(seen.action.long(), self.config.actions).double()
        else:
            action = seen.action.reshape(len(x), self.config.action_size).double()
        return torch.cat([x, action, after - x], 1)

    def _solve(self) -> None:
        """B and the whitening of what it leaves over."""
        k, o = self.inputs, self.config
        covariance = self.scatter / max(float(self.count), 1.0)
        deviation = np.sqrt(np.diagonal(covariance)) + 1e-9  # shrink what is standardised: numbers have units of their own
        scaled = covariance / np.outer(deviation, deviation)
        inner, cross, changes = scaled[:k, :k], scaled[k:, :k], scaled[k:, k:]
        slope = np.linalg.solve(shrunk(inner, o.shrinkage), cross.T).T
        left = changes - slope @ cross.T - cross @ slope.T + slope @ inner @ slope.T
        eye = o.shrinkage * np.eye(len(left))  # a change that is explained exactly still has a thousandth of its variance
        factor = np.linalg.inv(np.linalg.cholesky((left + left.T) / 2 + eye + 1e-9 * np.eye(len(left))))
        self.slope = torch.from_numpy(slope * deviation[k:, None] / deviation[None, :k])
        self.whiten = torch.from_numpy(factor / deviation[None, k:])
        self.unexplained = float(np.trace(left)) / len(left) if self.count else math.nan

    calibrate, flag = calibrate_threshold, flag_by_threshold

    def _own(self) -> dict[str, Array]:
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def state_dict(self) -> dict[str, Array]:
        return with_threshold(self._own(), self.threshold)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        own = without_threshold(state, self._own(), self.threshold, "detector linear-surprise")
        for name, array in self._own().items():
            array[...] = own[name]
        self._solve()
