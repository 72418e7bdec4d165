"""KL-UCB: upper confidence bounds as tight as Bernoulli arms allow."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared

NEWTON = 8  # steps, which bring any bound within 1e-9


def upper_bound(p: Array, level: Array) -> Array:
    """The largest q in [p, 1] with d(p, q) <= level, for means p in 0..1 and levels >= 0 of one shape.

    d(p, q) = p ln(p / q) + (1 - p) ln((1 - p) / (1 - q)) = -H(p) - p ln q - (1 - p) ln(1 - q). Newton's method from the right:
    d is convex in q, so it never overshoots. It starts from the lower of two bounds: q <= p + sqrt(level / 2) (Pinsker) and,
    because -p ln q >= 0, q <= 1 - exp(-(level + H(p)) / (1 - p)).
    """
    p = np.minimum(p, 1 - 1e-9)  # at 1 the bound is 1; 1e-9 below it, within 1e-9 of that
    entropy = -(1 - p) * np.log1p(-p) - p * np.log(np.maximum(p, 1e-300))
    q = np.minimum(p + np.sqrt(level / 2), -np.expm1(-(level + entropy) / (1 - p)))
    lowest = np.maximum(p, 1e-300)
    for _ in range(NEWTON):
        q = np.clip(q, lowest, 1 - 1e-15)
        slope = (q - p) / (q * (1 - q))  # of d in q
        excess = -entropy - p * np.log(q) - (1 - p) * np.log1p(-q) - level
        q = q - np.where(slope > 0, excess / np.maximum(slope, 1e-300), 0.0)
    found: Array = np.clip(q, p, 1.0)
    return found


@agent("kl-ucb")
class KLUCB:
    """The arm with the largest q that n d(mean, q) <= ln t + c ln ln t still allows (Garivier & Cappe 2011; they use c = 0).

    `plus` is their KL-UCB+, with t / n in place of t. The regret of both grows in the end as slowly as any can for Bernoulli
    arms (Lai & Robbins 1985; Kaufmann 2018 for plus), but plus gets there sooner. Rewards lie in 0..1.
    """

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        c: float = Field(0.0, ge=0, le=100, description="of ln ln t; the proof needs 3")
        plus: bool = Field(False, description="KL-UCB+: ln(t / n) in place of ln t, so that a well-known arm needs no bonus")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("kl-ucb", spaces, ("bernoulli", "beta", "adversarial"))
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        shared.record(carry, *shared.last_pull(obs, self.world.config.arms))
        mean, n = shared.means(carry)  # (N, k)
        tried, t = n > 0, np.maximum(n.sum(1, keepdims=True), 1.0)
        log_t = np.log(t / np.maximum(n, 1.0) if self.config.plus else t)
        level = log_t + self.config.c * np.log(np.maximum(log_t, 1.0))
        # index_a = max {q: n_a d(mean_a, q) <= ln t + c ln ln t}
        index = np.where(tried, upper_bound(np.where(tried, mean, 0.0), level / np.maximum(n, 1.0)), np.inf)
        return shared.pick(index, self.rng, mask=mask), carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
