"""Bayesian linear regression with known noise, one observation at a time, for any number of regressions side by side.

y = x w + e with w ~ N(0, sd^2 I) and e ~ N(0, noise^2). The posterior of w stays Gaussian; a new observation costs O(d^2).
Source: Bishop 2006, "Pattern Recognition and Machine Learning", section 3.3; Kalman 1960 for the sequential form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...store.arrays import Array

JITTER = 1e-12  # share of the largest variance that a factorisation adds to the diagonal


class Posterior(NamedTuple):
    """w ~ N(mean, covariance), for regressions (...)."""

    mean: Array  # float64 (..., d)
    covariance: Array  # float64 (..., d, d)


def prior(shape: tuple[int, ...], features: int, sd: float = 1.0) -> Posterior:
    """Weights N(0, sd^2 I) of regressions `shape`."""
    covariance = np.broadcast_to(sd**2 * np.eye(features), (*shape, features, features)).copy()
    return Posterior(np.zeros((*shape, features)), covariance)


def update(belief: Posterior, x: Array, y: Array, noise: float) -> Posterior:
    """The posterior after features x (..., d) came with y (...). Arrays are new.

    s = noise^2 + x C x,  gain = C x / s,  mean <- mean + gain (y - x mean),  C <- C - gain (C x)^T.
    """
    mean, covariance = belief
    cx = np.matmul(covariance, x[..., None])[..., 0]  # (..., d)
    s = noise**2 + (x * cx).sum(-1, keepdims=True)
    gain = cx / s
    error = y[..., None] - (x * mean).sum(-1, keepdims=True)
    return Posterior(mean + gain * error, covariance - gain[..., None] * cx[..., None, :])


def predict(belief: Posterior, x: Array) -> tuple[Array, Array]:
    """Mean x mean and variance x C x of the function at x (..., d); of an observation there: noise^2 more.

    Leading axes of x and the regressions broadcast: one belief (N, 1, d) meets the contexts of k arms (N, k, d).
    """
    cx = np.matmul(belief.covariance, x[..., None])[..., 0]
    return (x * belief.mean).sum(-1), np.maximum((x * cx).sum(-1), 0.0)


def sample_weights(belief: Posterior, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Weights from N(mean, scale^2 C), (..., d)."""
    d = belief.mean.shape[-1]
    largest = np.diagonal(belief.covariance, axis1=-2, axis2=-1).max(-1)[..., None, None]
    factor = np.linalg.cholesky(belief.covariance + JITTER * largest * np.eye(d))
    z = rng.standard_normal((*belief.mean.shape, 1))
    weights: Array = belief.mean + scale * np.matmul(factor, z)[..., 0]
    return weights


def sample_scores(belief: Posterior, x: Array, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """x w with w from N(mean, scale^2 C), for k candidates x (N, k, d) and beliefs (N, k, d) of each, or (N, 1, d) for all.

    Candidates with weights of their own are independent, and x w ~ N(x mean, scale^2 x C x) is drawn at once.
    """
    if belief.mean.shape[1] == 1:
        scores: Array = (x * sample_weights(belief, rng, scale)).sum(-1)
        return scores
    mean, variance = predict(belief, x)
    scores = mean + scale * np.sqrt(variance) * rng.standard_normal(mean.shape)
    return scores
