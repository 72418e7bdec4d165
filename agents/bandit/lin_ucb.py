"""LinUCB: upper confidence bounds on linear functions of a context."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Rollout, Spaces
from ..registry import agent
from .core import (
    BanditConfig,
    bandit_of,
    contexts,
    generator,
    last_pull,
    linear_prior,
    load_state,
    noise_of,
    observe_linear,
    pick,
    remember,
    state_of,
)


@agent("lin-ucb")
class LinUCB:
    """The arm with the largest x theta + alpha sd(x theta) under Bayesian linear regression (Li et al. 2010, algorithm 1).

    A regression for each arm, or one for all where their weights are shared (Chu et al. 2011). The bound of the paper with
    ridge 1 is noise=1 prior_sd=1 here.
    """

    masks: ClassVar[bool] = True

    class Config(BanditConfig):
        alpha: float = Field(1.0, ge=0, le=100, description="standard deviations that a promise is worth")
        prior_sd: float = Field(0.5, gt=0, le=1e6, description="of a weight, before anything is seen")
        noise: float | None = Field(None, gt=0, le=1e6, description="sd of a reward; null: as the world says, or 0.5")
        intercept: bool = Field(True, description="a weight that does not depend on the context")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, bandit_of("lin-ucb", spaces, context=True)
        self.noise = config.noise or noise_of(self.world)
        self.num_steps, self.rng = config.num_steps, generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        o = self.config
        return linear_prior(n, self.world, self.world.config.features + o.intercept, o.prior_sd)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...core_ml.maths.bayes_linear import Posterior, predict

        observe_linear(carry, *last_pull(obs, self.world.config.arms), self.noise)
        x = contexts(obs, self.world, self.config.intercept)  # (N, k, d)
        mean, variance = predict(Posterior(carry["mean"], carry["covariance"]), x)  # (N, k)
        action = pick(mean + self.config.alpha * np.sqrt(variance), self.rng, mask=mask)
        remember(carry, x, action)
        return action, carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return state_of(self)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        load_state(self, state)
