"""Bayes-optimal exploration by dynamic programming: the line that no agent beats, for few arms and pulls."""

from __future__ import annotations

from typing import Any

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("bayes-optimal")
class BayesOptimal:
    """What maximises the expected total reward of Bernoulli arms with means from U[0, 1], pull by pull (Bellman 1956).

    Exact tables of `envs.bayes.bayes_bandit`, as large as the problem: 5 arms up to 25 pulls, 10 arms up to 21.
    """

    class Config(shared.BanditConfig):
        pass

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        from ...envs.solvers.bayes import bandit_horizon

        self.config, self.world = config, shared.bandit_of("bayes-optimal", spaces)
        shared.only_fresh_uniform_arms("bayes-optimal", self.world)
        arms, pulls = self.world.config.arms, self.world.horizon
        if pulls > bandit_horizon(arms):
            least = f"take pulls={bandit_horizon(arms)}, or agent gittins"
            raise ValueError(f"agent bayes-optimal: {arms} arms and {pulls:,} pulls have too many states: {least}")
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.blank(n, self.world.config.arms)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...envs.solvers.bayes import bayes_bandit

        arms = self.world.config.arms
        shared.record(carry, *shared.last_pull(obs, arms))
        return bayes_bandit(arms, self.world.horizon).act(shared.counts(carry))[:, None], carry, {}

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
