"""Running mean and variance of observations."""

from __future__ import annotations

import numpy as np

from ...store.arrays import Array


class RunningNormaliser:
    """The mean and variance of all rows (B, D) ever given to `update`.

    Batches are merged exactly (Chan, Golub & LeVeque 1979), in float64.
    """

    def __init__(self, size: int) -> None:
        self.count = np.zeros(())
        self.mean = np.zeros(size)
        self.square = np.zeros(size)  # sum of squared deviations

    def update(self, rows: Array) -> None:
        rows = rows.astype(np.float64)
        n, mean = len(rows), rows.mean(0)
        square = np.square(rows - mean).sum(0)
        total = self.count + n
        delta = mean - self.mean
        self.square += square + np.square(delta) * self.count * n / total
        self.mean += delta * n / total
        self.count[...] = total

    def scale(self) -> Array | None:
        """What standardises rows, float32 (2, D): subtract the mean, multiply by 1 / deviation; None before the first update.

        The caller clips the result to +-10.
        """
        if self.count == 0:
            return None
        std = np.sqrt(self.square / self.count).clip(1e-6)
        return np.stack([self.mean, 1.0 / std]).astype(np.float32)

    def state(self) -> dict[str, Array]:
        return {"count": self.count, "mean": self.mean, "square": self.square}

    def load(self, state: dict[str, Array]) -> None:
        for name, array in self.state().items():
            array[...] = state[name]
