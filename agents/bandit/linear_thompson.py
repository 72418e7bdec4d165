"""Linear Thompson sampling: a draw from Bayesian linear regression on a context."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ...store.arrays import Array
from ..masks import only_legal
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("linear-thompson")
class LinearThompson:
    """Draw weights from N(posterior mean, v^2 posterior covariance), pull the best arm (Agrawal & Goyal 2013, algorithm 1).

    A regression for each arm, or one for all where their weights are shared.
    """

    masks: ClassVar[bool] = True

    class Config(shared.LinearConfig):
        v: float = Field(1.0, ge=0, le=100, description="1: the posterior itself; more explores more")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("linear-thompson", spaces, context=True)
        self.noise = config.noise or shared.noise_of(self.world)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    initial = shared.linear_initial

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...core_ml.maths.bayes_linear import Posterior, sample_scores

        shared.observe_linear(carry, *shared.last_pull(obs, self.world.config.arms), self.noise)
        x = shared.contexts(obs, self.world, self.config.intercept)  # (N, k, d)
        score = sample_scores(Posterior(carry["mean"], carry["covariance"]), x, self.rng, self.config.v)  # (N, k)
        action = only_legal(score, mask).argmax(1)[:, None]
        shared.remember(carry, x, action)
        return action, carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
