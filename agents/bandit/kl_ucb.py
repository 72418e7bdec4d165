"""KL-UCB: upper confidence bounds as tight as Bernoulli arms allow."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from ..core import Array, Carry, Mode, Rollout, Spaces, agent
from .core import BanditConfig, bandit_of, blank, generator, last_pull, load_state, means, pick, record, state_of

NEWTON = 8  # steps; from where they start, four reach the last bit nearly everywhere


def bernoulli_kl(p: Array, q: Array) -> Array:
    """d(p, q) = p ln(p / q) + (1 - p) ln((1 - p) / (1 - q)), with 0 ln 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(p > 0, p * np.log(p / q), 0.0)
        zero = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    return one + zero


def upper_bound(p: Array, level: Array) -> Array:
    """The largest q in [p, 1] with d(p, q) <= level, for means p in 0..1 and levels >= 0 of one shape.

    Newton's method from the right: d is convex in q, so it never overshoots. It starts from the lower of two bounds,
    q <= p + sqrt(level / 2) (Pinsker) and, because d(p, q) >= -H(p) - (1 - p) ln(1 - q), q <= 1 - exp(-(level + H(p)) / (1 - p)).
    """
    p = np.minimum(p, 1 - 1e-9)  # at 1 the bound is 1; 1e-9 below it, within 1e-9 of that
    entropy = -(1 - p) * np.log1p(-p) - np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0)
    q = np.minimum(p + np.sqrt(level / 2), -np.expm1(-(level + entropy) / (1 - p)))
    q = np.clip(q, p, 1 - 1e-15)
    for _ in range(NEWTON):
        slope = (q - p) / np.maximum(q * (1 - q), 1e-300)  # d'(q)
        step = (bernoulli_kl(p, q) - level) / np.where(slope > 0, slope, np.inf)
        q = np.clip(q - step, p, 1 - 1e-15)
    return q


@agent("kl-ucb")
class KLUCB:
    """The arm with the largest q that n d(mean, q) <= ln t + c ln ln t still allows (Garivier & Cappe 2011; they use c = 0).

    Its regret grows as slowly as any can for Bernoulli arms (Lai & Robbins 1985). Rewards lie in 0..1.
    """

    class Config(BanditConfig):
        c: float = Field(0.0, ge=0, le=100, description="of ln ln t; the proof needs 3")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, bandit_of("kl-ucb", spaces, ("bernoulli", "beta", "adversarial"))
        self.num_steps, self.rng = config.num_steps, generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return blank(n, self.world.config.arms)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        record(carry, *last_pull(obs, self.world.config.arms))
        mean, n = means(carry)  # (N, k)
        log_t = np.log(np.maximum(n.sum(1, keepdims=True), 1.0))
        level = log_t + self.config.c * np.log(np.maximum(log_t, 1.0))
        tried = n > 0
        # index_a = max {q: n_a d(mean_a, q) <= ln t + c ln ln t}
        index = np.where(tried, upper_bound(np.where(tried, mean, 0.0), level / np.maximum(n, 1.0)), np.inf)
        return pick(index, self.rng), carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return state_of(self)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        load_state(self, state)
