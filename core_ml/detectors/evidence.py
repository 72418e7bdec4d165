"""What the scores of an episode's steps come to: one number that rises while they are unlike those it was measured by."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array, check_arrays
from ..component import ComponentConfig

State = dict[str, Array]


class Evidence:
    """Scores s_t of steps, standardised to z_t = (s_t - mean) / deviation by those that `measure` saw, added up to E_t.

    cusum: E_t = max(0, E_{t-1} + z_t - drift) (Page 1954), for a change at any time. mean: E_t = sum z / sqrt(t), for a change
    that is there from the start. max: E_t = z_t, for a single step that gives it away. The evidence against an episode is
    `peak`, the highest E so far: of two episodes' peaks each is as likely to be the higher, which conformal thresholds need.

    A NaN is no opinion, and changes nothing. Deviations count as 0.01 of the mean, or 0.01, at least: where scores never vary,
    last bits must not be evidence.
    """

    class Config(ComponentConfig):
        kind: Literal["cusum", "mean", "max"] = Field("cusum", description="how the scores of an episode's steps are added up")
        drift: float = Field(0.5, ge=0, description="of cusum: deviations a step that are forgiven")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.count, self.mean, self.square = np.zeros(()), np.zeros(()), np.zeros(())  # square: of deviations, summed

    def measure(self, scores: Array) -> None:
        """Count scores of steps, of any shape, in mean and deviation (merged exactly: Chan, Golub & LeVeque 1979)."""
        known = scores[~np.isnan(scores)].astype(np.float64)
        if not len(known):
            return
        n, total = len(known), self.count + len(known)
        delta = known.mean() - self.mean
        self.square += np.square(known - known.mean()).sum() + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count[...] = total

    @property
    def deviation(self) -> float:
        spread = float(np.sqrt(self.square / self.count)) if self.count else 1.0
        return max(spread, 0.01 * max(1.0, abs(float(self.mean))))

    def initial(self, n: int) -> State:
        """n episodes before their first score: E and peak, float64 (n,), and how many scores there were, int64 (n,)."""
        return {"evidence": np.zeros(n), "peak": np.full(n, -np.inf), "scores": np.zeros(n, np.int64)}

    def add(self, scores: Array, state: State) -> State:
        """One score of each of n episodes, (n,); a new state."""
        known = ~np.isnan(scores)
        z = (np.where(known, scores, self.mean) - self.mean) / self.deviation
        count, before = state["scores"] + known, state["evidence"]
        if self.config.kind == "cusum":
            after = np.maximum(0.0, before + z - self.config.drift)
        elif self.config.kind == "mean":
            after = (before * np.sqrt(state["scores"]) + z) / np.sqrt(np.maximum(count, 1))
        else:
            after = z
        after = np.where(known, after, before)
        peak = np.where(known, np.maximum(state["peak"], after), state["peak"])
        return {"evidence": after, "peak": peak, "scores": count}

    def state_dict(self) -> dict[str, Array]:
        return {"count": self.count.copy(), "mean": self.mean.copy(), "square": self.square.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "evidence")
        self.count[...], self.mean[...], self.square[...] = state["count"], state["mean"], state["square"]
