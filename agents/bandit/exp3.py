"""EXP3: against an adversary who may choose every reward."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("exp3")
class EXP3:
    """Exponential weights on estimated rewards (Auer et al. 2002, "The nonstochastic multiarmed bandit problem", figure 1).

    p_a = (1 - gamma) w_a / sum w + gamma / k;  w_a <- w_a exp(gamma x / k) with x = reward / p_a for the pulled arm. Rewards
    lie in 0..1. Without `gamma` it is that of corollary 3.2 for the known number of pulls.
    """

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        gamma: float | None = Field(None, gt=0, le=1, description="share of exploration; null: the best for so many pulls")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("exp3", spaces, ("bernoulli", "beta", "adversarial"))
        k, pulls = self.world.config.arms, self.world.config.pulls
        # gamma = min(1, sqrt(k ln k / ((e - 1) T)))
        self.gamma = config.gamma or min(1.0, math.sqrt(k * math.log(k) / ((math.e - 1) * pulls)))
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return {"log_weight": np.zeros((n, self.world.config.arms)), "chance": np.ones(n)}  # of the last pull's arm

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        n, k = carry["log_weight"].shape
        rows, arm, reward = shared.last_pull(obs, k)
        carry["log_weight"][rows, arm] += self.gamma * reward / carry["chance"][rows] / k
        weight = np.exp(carry["log_weight"] - carry["log_weight"].max(1, keepdims=True))
        p = (1 - self.gamma) * weight / weight.sum(1, keepdims=True) + self.gamma / k  # (N, k)
        if mask is not None:  # what is drawn from is p given that the arm is legal
            p = p * mask[:, 0]
            p = p / p.sum(1, keepdims=True)
        cumulative = p.cumsum(1)
        u = self.rng.random((n, 1)) * cumulative[:, -1:]
        action = (cumulative <= u).sum(1)
        carry["chance"][:] = p[np.arange(n), action]
        return action[:, None], carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
