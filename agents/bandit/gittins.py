"""Finite-horizon Gittins indices: close to the optimum for Bernoulli arms, at horizons where the optimum is out of reach."""

from __future__ import annotations

from typing import Any

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("gittins")
class Gittins:
    """The arm with the largest rate of reward that stopping in time can earn, pulls left and prior U[0, 1] known.

    Exact indices of `envs.bayes.gittins_table` (Bradt, Johnson & Karlin 1956; Kaufmann 2018).
    """

    class Config(shared.BanditConfig):
        pass

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        from ...envs.solvers.bayes import GITTINS_PULLS

        self.config, self.world = config, shared.bandit_of("gittins", spaces)
        shared.only_fresh_uniform_arms("gittins", self.world)
        if self.world.horizon > GITTINS_PULLS:
            raise ValueError(
                f"agent gittins: {self.world.horizon:,} pulls are too many for its table: take pulls={GITTINS_PULLS}"
            )
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...envs.solvers.bayes import gittins_table

        shared.record(carry, *shared.last_pull(obs, self.world.config.arms))
        return gittins_table(self.world.horizon).act(shared.counts(carry))[:, None], carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
