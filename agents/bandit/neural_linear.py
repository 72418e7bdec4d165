"""Neural-linear: a network learns features over many tasks, Bayesian linear regression on them explores within each."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array, check_arrays
from ...store.random_state import generator_state, set_generator_state
from ..masks import only_legal
from ..protocol import AgentConfig, Carry, Mode, NonFinite, Rollout, Spaces
from ..registry import agent
from . import shared


@agent("neural-linear")
class NeuralLinear:
    """Thompson sampling on a Bayesian last layer (Riquelme, Tucker & Snoek 2018, "Deep Bayesian bandits showdown").

    Within an episode the last layer alone learns, exactly. `learn` trains the features below it after each episode, on the
    marginal likelihood of all environments' rewards, so that they serve tasks that were never seen (Harrison et al. 2018).
    """

    masks: ClassVar[bool] = True

    class Config(AgentConfig):
        hidden: tuple[int, ...] = Field((64, 16), min_length=1, max_length=8, description="widths; the last: how many features")
        activation: Literal["tanh", "relu"] = Field("tanh", description="nonlinearity after each hidden layer")
        v: float = Field(1.0, ge=0, le=100, description="1: samples from the posterior itself; more explores more")
        prior_sd: float = Field(1.0, gt=0, le=1e6, description="of a weight of the last layer, before anything is seen")
        noise: float | None = Field(None, gt=0, le=1e6, description="sd of a reward; null: as the world says, or 0.5")
        learning_rate: float = Field(3e-3, ge=0, le=10, description="0: features stay random")
        update_epochs: int = Field(4, ge=1, le=100, description="passes over a rollout")
        num_minibatches: int = Field(4, ge=1, le=10_000, description="parts of the environments, each a step of Adam")
        max_grad_norm: float = Field(1.0, ge=0, le=1e6, description="0: no clipping")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("neural-linear", spaces, context=True)
        if not all(1 <= width <= 1024 for width in config.hidden):
            raise ValueError(f"agent neural-linear: hidden={list(config.hidden)}: take widths in 1..1024")
        self.noise = config.noise or shared.noise_of(self.world)
        self.num_steps = self.world.horizon  # an episode at a time: features change between episodes only
        self.rng = shared.generator(seed)
        from ...core_ml.nets.bayes_features import BayesFeatures

        inputs = self.world.config.features
        self.model = BayesFeatures(inputs, config.hidden, config.activation, config.prior_sd, self.noise)
        self.model.parameters.initialise(self.rng)

    def initial(self, n: int) -> dict[str, Array]:
        return shared.linear_prior(n, self.world, self.config.hidden[-1] + 1, self.config.prior_sd)

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        from ...core_ml.maths.bayes_linear import Posterior, sample_scores

        shared.observe_linear(carry, *shared.last_pull(obs, self.world.config.arms), self.noise)
        phi = self._features(obs)
        score = sample_scores(Posterior(carry["mean"], carry["covariance"]), phi, self.rng, self.config.v)  # (N, k)
        action = only_legal(score, mask).argmax(1)[:, None]
        shared.remember(carry, phi, action)
        return action, carry, {}

    def _features(self, obs: Array) -> Array:
        """phi of each arm's context, (N, k, d); computed once where all arms share theirs."""
        x = shared.contexts(obs, self.world, intercept=False)
        alike = self.world.config.weights == "shared"
        phi = self.model.features(x if alike else x[:, :1])
        return np.broadcast_to(phi, (*x.shape[:2], phi.shape[2]))

    def learn(self, batch: Rollout, progress: float) -> dict[str, float]:
        o = self.config
        if not o.learning_rate:
            return {}
        t, n = batch.reward.shape[:2]
        k, action = self.world.config.arms, batch.action[:, :, 0]
        x = np.stack(
            [
                shared.contexts(obs, self.world, intercept=False)[np.arange(n), a]
                for obs, a in zip(batch.obs, action, strict=True)
            ]
        )
        m = 1 if self.world.config.weights == "shared" else k
        weight = np.arange(m)[:, None] == np.minimum(action, m - 1).T[:, None]  # (N, M, T): which regression a pull belongs to
        x, y = x.transpose(1, 0, 2), batch.reward[:, :, 0].T  # (N, T, D), (N, T)
        found: list[tuple[float, float]] = []
        for _ in range(o.update_epochs):
            for part in np.array_split(self.rng.permutation(n), min(o.num_minibatches, n)):
                found.append(self.model.train(x[part], y[part], weight[part], o.learning_rate, o.max_grad_norm))
                if not all(map(math.isfinite, found[-1])):
                    raise NonFinite(f"likelihood or gradient is {found[-1]}: lower agent.learning_rate")
        nll, norm = np.mean(found, axis=0).tolist()
        return {"loss/nll": nll, "grad_norm": norm}

    def state_dict(self) -> dict[str, Array]:
        state = {name: array.copy() for name, array in self.model.parameters.state().items()}
        return state | {"rng": generator_state(self.rng)}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        check_arrays(state, self.state_dict(), "agent neural-linear")
        self.model.parameters.load(state)
        set_generator_state(self.rng, state["rng"])
