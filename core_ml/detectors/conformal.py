"""Split conformal thresholds: how high a score must be so that false alarms keep a promised rate.

Whatever the scores are, if those of calibration and a new one are exchangeable (any order of them as likely as any other), the
new one's rank among all n + 1 is uniform. Nothing is assumed of their distribution, and nothing is left to large n. (Vovk,
Gammerman & Shafer 2005, "Algorithmic Learning in a Random World", chapter 2; Angelopoulos & Bates 2023, "Conformal
Prediction: A Gentle Introduction", sections 1 and 4.4.)

Scores of steps of one episode are not exchangeable: neighbours are alike. One number for each whole episode is, such as the
highest evidence that it came to (`evidence.py`): calibrate on these, and the promise is about episodes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...store.arrays import Array, check_arrays


def conformal_quantile(scores: Array, alpha: float) -> float:
    """The k-th smallest of n scores, k = ceil((n + 1) (1 - alpha)); infinity where k > n: too few scores for this alpha.

    A new exchangeable score is above it with probability alpha at most, and, without ties, more than alpha - 1 / (n + 1)
    (Angelopoulos & Bates 2023, appendix D).
    """
    n = len(scores)
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)  # (n + 1) (1 - alpha) may be whole, and a little more by rounding
    return float(np.sort(scores)[k - 1]) if k <= n else math.inf


def p_values(calibration: Array, scores: Array) -> Array:
    """(1 + how many of n calibration scores are as high at least) / (n + 1) for each of `scores`, float64 of their shape.

    For an exchangeable score P(p <= u) <= u for every u (Bates et al. 2023, "Testing for outliers with conformal p-values",
    section 2).
    """
    higher = len(calibration) - np.searchsorted(np.sort(calibration), scores, "left")
    found: Array = (1.0 + higher) / (len(calibration) + 1.0)
    return found


class Conformal:
    """A threshold with a promise, `alpha`: the largest share of exchangeable scores that is flagged.

    `tolerance`: scores count as equal that differ by less than so much, or by less than that share of the threshold; where
    everything repeats exactly, last bits must not raise an alarm. It can only lower the share.
    """

    def __init__(self, alpha: float, tolerance: float = 0.0) -> None:
        self.alpha, self.tolerance = alpha, tolerance
        self.scores = np.zeros(0)  # of calibration, ascending
        self.threshold = math.inf  # nothing is flagged before calibration

    def calibrate(self, scores: Array) -> float:
        """Take n exchangeable scores (n,) for those of calibration, instead of any before; the threshold."""
        if scores.ndim != 1 or np.isnan(scores).any():
            raise ValueError(f"calibration takes scores (n,) without NaN, these are {scores.shape}: one for each episode")
        self.scores = np.sort(scores.astype(np.float64))
        self.threshold = conformal_quantile(self.scores, self.alpha)
        return self.threshold

    def flag(self, scores: Array) -> Array:
        """Which scores are above the threshold; bool, of their shape."""
        slack = self.tolerance * max(1.0, abs(self.threshold)) if math.isfinite(self.threshold) else 0.0
        found: Array = scores > self.threshold + slack
        return found

    def p_values(self, scores: Array) -> Array:
        return p_values(self.scores, scores)

    def state_dict(self) -> dict[str, Array]:
        """The scores of calibration, (n,), from which all else follows."""
        return {"scores": self.scores.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays({k: v[:0] if v.ndim else v for k, v in state.items()}, {"scores": np.zeros(0)}, "conformal threshold")
        self.calibrate(state["scores"])


# ---- methods of detectors with a `threshold`: a class takes them by name ----


def calibrate_threshold(self: Any, scores: Array) -> float:
    """See `Detector.calibrate`."""
    return float(self.threshold.calibrate(scores))


def flag_by_threshold(self: Any, scores: Array) -> Array:
    """See `Detector.flag`."""
    flags: Array = self.threshold.flag(scores)
    return flags
