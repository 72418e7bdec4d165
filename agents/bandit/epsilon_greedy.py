"""Epsilon-greedy: now and then any arm, else the one with the best mean so far."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..masks import random_legal
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("epsilon-greedy")
class EpsilonGreedy:
    """With probability epsilon_t a random arm, else the best mean so far (Sutton & Barto 2018, section 2.4).

    epsilon_t is `epsilon`, or decaying min(1, `scale` k / t) (Auer et al. 2002, figure 3, where `scale` is c / d^2). Large
    `prior` rewards make it optimistic. The greedy agent of RL^2 (Duan et al. 2016) is epsilon=0 ties=first.
    """

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        epsilon: float = Field(0.1, ge=0, le=1, description="probability of a random arm")
        schedule: Literal["constant", "decaying"] = Field("constant", description="decaying: min(1, scale k / t) at pull t")
        scale: float = Field(1.0, gt=0, le=1e6, description="with schedule=decaying")
        prior: tuple[float, float] = Field((1.0, 1.0), description="rewards and failures that each arm is taken to have had")
        ties: Literal["random", "first"] = Field("random", description="which of equally good arms")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("epsilon-greedy", spaces)
        shared.check_prior("epsilon-greedy", config.prior)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        o, (n, k) = self.config, carry["pulls"].shape
        shared.record(carry, *shared.last_pull(obs, k))
        best = shared.pick(shared.means(carry, o.prior)[0], self.rng, o.ties, mask)
        t = carry["pulls"].sum(1, keepdims=True) + 1
        epsilon = o.epsilon if o.schedule == "constant" else np.minimum(1.0, o.scale * k / t)
        explore = self.rng.random((n, 1)) < epsilon
        arm = self.rng.integers(k, size=(n, 1)) if mask is None else random_legal(mask, self.rng.random((n, 1)))
        return np.where(explore, arm, best), carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
