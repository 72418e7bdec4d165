"""LinUCB: upper confidence bounds on linear functions of a context."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("lin-ucb")
class LinUCB:
    """The arm with the largest x theta + alpha sd(x theta) under Bayesian linear regression (Li et al. 2010, algorithm 1).

    A regression for each arm, or one for all where their weights are shared (Chu et al. 2011). The bound of the paper with
    ridge 1 is noise=1 prior_sd=1 here.
    """

    masks: ClassVar[bool] = True

    class Config(shared.LinearConfig):
        alpha: float = Field(1.0, ge=0, le=100, description="standard deviations that a promise is worth")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("lin-ucb", spaces, context=True)
        self.noise = config.noise or shared.noise_of(self.world)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    initial = shared.linear_initial

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...core_ml.maths.bayes_linear import Posterior, predict

        shared.observe_linear(carry, *shared.last_pull(obs, self.world.config.arms), self.noise)
        x = shared.contexts(obs, self.world, self.config.intercept)  # (N, k, d)
        mean, variance = predict(Posterior(carry["mean"], carry["covariance"]), x)  # (N, k)
        action = shared.pick(mean + self.config.alpha * np.sqrt(variance), self.rng, mask=mask)
        shared.remember(carry, x, action)
        return action, carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
