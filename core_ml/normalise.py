"""Running mean and variance of observations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class RunningNormaliser:
    """Standardises rows of (B, D) by the mean and variance of all rows ever given to `update`, clipped to +-10.

    Batches are merged exactly (Chan, Golub & LeVeque 1979), in float64.
    """

    def __init__(self, size: int) -> None:
        self.count = torch.zeros((), dtype=torch.float64)
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.square = torch.zeros(size, dtype=torch.float64)  # sum of squared deviations

    def update(self, rows: Tensor) -> None:
        rows = rows.double()
        n, mean = len(rows), rows.mean(0)
        square = (rows - mean).square().sum(0)
        total = self.count + n
        delta = mean - self.mean
        self.square += square + delta.square() * self.count * n / total
        self.mean += delta * n / total
        self.count = total

    def __call__(self, rows: Tensor) -> Tensor:
        if self.count == 0:
            return rows
        std = (self.square / self.count).sqrt().clamp_min(1e-6)
        return ((rows - self.mean.float()) / std.float()).clamp(-10.0, 10.0)

    def scale(self) -> npt.NDArray[np.float32] | None:
        """The mean and 1 / deviation that rows are standardised with, (2, D); None before the first update."""
        if self.count == 0:
            return None
        std = (self.square / self.count).sqrt().clamp_min(1e-6)
        return torch.stack([self.mean, 1.0 / std]).float().numpy()

    def state(self) -> dict[str, Tensor]:
        return {"count": self.count, "mean": self.mean, "square": self.square}

    def load(self, state: dict[str, Tensor]) -> None:
        self.count, self.mean, self.square = (state[k].clone() for k in ("count", "mean", "square"))
