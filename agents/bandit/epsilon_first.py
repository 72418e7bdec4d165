"""Epsilon-first: explore for a share of the pulls, then take what was best."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("epsilon-first")
class EpsilonFirst:
    """Explore in the first `epsilon` of the pulls, evenly or by softmax; afterwards the arm with the best mean so far."""

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        epsilon: float = Field(0.2, ge=0, le=1, description="share of the pulls that explore")
        exploration: Literal["uniform", "softmax"] = Field("uniform", description="how arms are chosen at first")
        temperature: float = Field(0.1, gt=0, le=100, description="of the softmax over means, in units of reward")
        prior: tuple[float, float] = Field((1.0, 1.0), description="rewards and failures that each arm is taken to have had")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("epsilon-first", spaces)
        shared.check_prior("epsilon-first", config.prior)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        o = self.config
        shared.record(carry, *shared.last_pull(obs, self.world.config.arms))
        index, _ = shared.means(carry, o.prior)
        explore = carry["pulls"].sum(1) < o.epsilon * self.world.config.pulls
        if explore.any():
            shape = int(explore.sum()), index.shape[1]
            if o.exploration == "uniform":
                index[explore] = self.rng.random(shape)
            else:  # argmax of m_a / temperature + Gumbel noise has P(a) ~ exp(m_a / temperature) (Gumbel 1954)
                index[explore] = index[explore] / o.temperature + self.rng.gumbel(size=shape)
        return shared.pick(index, self.rng, mask=mask), carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
