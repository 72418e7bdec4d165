"""Upper confidence bounds: UCB1, and its forms for arms that change."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("ucb1")
class UCB1:
    """Optimism: the arm with the largest mean + c sqrt(2 ln t / n) (Auer et al. 2002; c = 1 is theirs for rewards in 0..1).

    `discount` < 1 weighs old pulls less, `window` > 0 sees the last ones alone (Garivier & Moulines 2011): for arms that
    change. `confidence=constant` leaves the time out, c / sqrt(n), as in DPT (Lee et al. 2023). `prior` (1, 1) takes each arm
    to have paid once in two pulls, so that not every arm has to be tried.
    """

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        c: float = Field(1.0, ge=0, le=100, description="how much an uncertain arm is worth")
        confidence: Literal["growing", "constant"] = Field("growing", description="whether what is uncertain grows with time")
        prior: tuple[float, float] = Field((0.0, 0.0), description="rewards and failures that each arm is taken to have had")
        discount: float = Field(1.0, gt=0, le=1, description="weight that a pull keeps with each later one")
        window: int = Field(0, ge=0, le=100_000, description="how many of the last pulls count; 0: all")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("ucb1", spaces)
        shared.check_prior("ucb1", config.prior)
        shared.check_forgetting("ucb1", config)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms, self.config.window)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        o = self.config
        shared.record(carry, *shared.last_pull(obs, self.world.config.arms), o.discount, o.window)
        mean, n = shared.means(carry, o.prior)  # (N, k)
        t = np.maximum(carry["pulls"].sum(1, keepdims=True), 1.0)  # discounted, or in the window, as n is
        # index_a = mean_a + c sqrt(2 ln t / n_a)
        with np.errstate(divide="ignore", invalid="ignore"):
            width = 2 * np.log(t) if o.confidence == "growing" else 1.0
            index = np.where(n > 0, mean + o.c * np.sqrt(width / n), np.inf)
        return shared.pick(index, self.rng, mask=mask), carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
