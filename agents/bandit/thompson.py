"""Thompson sampling: act on a draw from what is believed, with Beta or Gaussian beliefs, also for arms that change."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..masks import only_legal
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("thompson")
class Thompson:
    """Draw each arm's mean from its posterior and pull the arm with the largest (Thompson 1933).

    beta: Beta(a + S, b + F), each reward in 0..1 turned into a coin that falls so (Agrawal & Goyal 2012, algorithm 2).
    gaussian: prior N(m, s^2), rewards N(mean, noise^2). `discount` < 1 lets evidence fade (Raj & Kalyani 2017), `window` > 0
    keeps the last pulls alone (Trovo et al. 2020): for arms that change.
    """

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        posterior: Literal["auto", "beta", "gaussian"] = Field("auto", description="auto: gaussian where rewards are")
        prior: tuple[float, float] = Field((1.0, 1.0), description="a and b of the Beta prior")
        prior_mean: float = Field(0.5, ge=-1e6, le=1e6, description="m of the Gaussian prior")
        prior_sd: float = Field(12**-0.5, gt=0, le=1e6, description="s of the Gaussian prior; that of U[0, 1]")
        noise: float | None = Field(None, gt=0, le=1e6, description="sd of a Gaussian reward; null: as the world says, or 0.5")
        discount: float = Field(1.0, gt=0, le=1, description="weight that a pull keeps with each later one")
        window: int = Field(0, ge=0, le=100_000, description="how many of the last pulls count; 0: all")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        beta = ("bernoulli", "beta", "adversarial")
        self.config = config
        self.world = shared.bandit_of("thompson", spaces, beta if config.posterior == "beta" else (*beta, "gaussian"))
        kind = self.world.config.reward
        self.gaussian = config.posterior == "gaussian" or (config.posterior == "auto" and kind == "gaussian")
        self.coins = not self.gaussian and (kind == "beta" or bool(self.world.config.sequence))
        self.noise = config.noise or shared.noise_of(self.world)
        if min(config.prior) <= 0:
            raise ValueError(f"agent thompson: prior={list(config.prior)} is no Beta distribution: take numbers above 0")
        shared.check_forgetting("thompson", config)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms, self.config.window)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        o = self.config
        rows, arm, reward = shared.last_pull(obs, self.world.config.arms)
        if self.coins:
            reward = (self.rng.random(len(reward)) < reward).astype(np.float64)
        shared.record(carry, rows, arm, reward, o.discount, o.window)
        n, total = carry["pulls"], carry["reward"]  # (N, k)
        if self.gaussian:
            # precision = 1 / s^2 + n / noise^2,  mean = (m / s^2 + S / noise^2) / precision
            precision = o.prior_sd**-2 + n / self.noise**2
            mean = (o.prior_mean * o.prior_sd**-2 + total / self.noise**2) / precision
            theta = mean + self.rng.standard_normal(n.shape) / np.sqrt(precision)
        else:
            lost = np.maximum(n - total, 0.0)  # a rounding error below 0 is no failure
            theta = self.rng.beta(o.prior[0] + np.maximum(total, 0.0), o.prior[1] + lost)
        return only_legal(theta, mask).argmax(1)[:, None], carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
