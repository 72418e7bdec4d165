"""Linear Thompson sampling: a draw from Bayesian linear regression on a context."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ...store.arrays import Array
from ..masks import only_legal
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
    remember,
    state_of,
)


@agent("linear-thompson")
class LinearThompson:
    """Draw weights from N(posterior mean, v^2 posterior covariance), pull the best arm (Agrawal & Goyal 2013, algorithm 1).

    A regression for each arm, or one for all where their weights are shared.
    """

    masks: ClassVar[bool] = True

    class Config(BanditConfig):
        v: float = Field(1.0, ge=0, le=100, description="1: the posterior itself; more explores more")
        prior_sd: float = Field(0.5, gt=0, le=1e6, description="of a weight, before anything is seen")
        noise: float | None = Field(None, gt=0, le=1e6, description="sd of a reward; null: as the world says, or 0.5")
        intercept: bool = Field(True, description="a weight that does not depend on the context")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, bandit_of("linear-thompson", spaces, context=True)
        self.noise = config.noise or noise_of(self.world)
        self.num_steps, self.rng = config.num_steps, generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        o = self.config
        return linear_prior(n, self.world, self.world.config.features + o.intercept, o.prior_sd)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...core_ml.maths.bayes_linear import Posterior, sample_scores

        observe_linear(carry, *last_pull(obs, self.world.config.arms), self.noise)
        x = contexts(obs, self.world, self.config.intercept)  # (N, k, d)
        score = sample_scores(Posterior(carry["mean"], carry["covariance"]), x, self.rng, self.config.v)  # (N, k)
        action = only_legal(score, mask).argmax(1)[:, None]
        remember(carry, x, action)
        return action, carry, {}

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Array]:
        return state_of(self)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        load_state(self, state)
