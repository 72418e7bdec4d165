"""GP-UCB: upper confidence bounds on a Gaussian process, for arms whose neighbours are alike."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...store.arrays import Array
from ..protocol import Carry, Mode, Spaces
from ..registry import agent
from . import shared


@agent("gp-ucb")
class GPUCB:
    """The arm with the largest mu + scale sqrt(beta_t) sd of a Gaussian process over the arms (Srinivas et al. 2010).

    beta_t = 2 ln(k t^2 pi^2 / (6 delta)) (their theorem 1; like their section 6, `scale` divides it by 5). The kernel is the
    world's: RBF with its length scale and spread, around 0.5. model sequential: conditioned on one pull after the other, all
    environments at once; scikit-learn: a GaussianProcessRegressor for each environment and pull, which can also `fit` the
    length scale.
    """

    masks: ClassVar[bool] = True

    class Config(shared.BanditConfig):
        scale: float = Field(5**-0.5, ge=0, le=100, description="factor on the width of the confidence bound")
        delta: float = Field(0.1, gt=0, lt=1, description="probability that a bound fails")
        model: Literal["sequential", "scikit-learn"] = Field("sequential", description="whose Gaussian process does the work")
        fit: bool = Field(False, description="estimate the length scale by marginal likelihood; needs model=scikit-learn")
        noise: float | None = Field(None, gt=0, le=1e6, description="sd of a reward; null: as the world says, or 0.5")

    def __init__(self, config: Config, spaces: Spaces, seed: int, threads: int = 1) -> None:
        self.config, self.world = config, shared.bandit_of("gp-ucb", spaces)
        if not self.world.config.length_scale:
            raise ValueError("agent gp-ucb: needs arms on a line: take --env bandit-line, or length_scale=0.2")
        if config.fit and config.model == "sequential":
            raise ValueError("agent gp-ucb: fit=true is scikit-learn's: add agent.model=scikit-learn")
        self.noise = config.noise or shared.noise_of(self.world)
        self.num_steps, self.rng = config.num_steps, shared.generator(seed)
        self._prior: Array | None = None  # (k, k), made when it is needed: scikit-learn takes a while to import

    def initial(self, n: int) -> dict[str, Array]:
        k = self.world.config.arms
        if self.config.model == "scikit-learn":
            return shared.blank(n, k)
        if self._prior is None:
            self._prior = self._regressor().predict(self._places(), return_cov=True)[1]
        return {"mean": np.full((n, k), 0.5), "covariance": np.broadcast_to(self._prior, (n, k, k)).copy(), "t": np.zeros(n)}

    def act(self, obs: Array, carry: Any, mode: Mode, mask: Array | None = None) -> tuple[Array, Carry, dict[str, Array]]:
        o, k = self.config, self.world.config.arms
        rows, arm, reward = shared.last_pull(obs, k)
        if o.model == "scikit-learn":
            shared.record(carry, rows, arm, reward)
            t, (mean, sd) = carry["pulls"].sum(1), self._posteriors(carry)
        else:
            # A process over k arms is k correlated weights, of which a pull sees one: x is the arm as one-hot.
            from ...core_ml.maths.bayes_linear import Posterior, update

            before = Posterior(carry["mean"][rows], carry["covariance"][rows])
            carry["mean"][rows], carry["covariance"][rows] = update(before, np.eye(k)[arm], reward, self.noise)
            carry["t"][rows] += 1
            t, mean = carry["t"], carry["mean"]
            sd = np.sqrt(np.maximum(np.diagonal(carry["covariance"], axis1=1, axis2=2), 0.0))
        # beta_t = 2 ln(k t^2 pi^2 / (6 delta)) at pull t = 1, 2, ...
        beta = 2 * np.log(k * (t[:, None] + 1) ** 2 * math.pi**2 / (6 * o.delta))
        return shared.pick(mean + o.scale * np.sqrt(beta) * sd, self.rng, mask=mask), carry, {}

    def _places(self) -> Array:
        return np.linspace(0, 1, self.world.config.arms)[:, None]

    def _regressor(self, alpha: Any = 1e-10) -> Any:
        """An unfitted process with the world's kernel; `alpha`: variance of each observation's noise."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel

        w = self.world.config
        kernel = ConstantKernel(w.spread**2, "fixed") * RBF(w.length_scale, (0.01, 10.0) if self.config.fit else "fixed")
        return GaussianProcessRegressor(kernel, alpha=alpha, optimizer="fmin_l_bfgs_b" if self.config.fit else None)

    def _posteriors(self, carry: dict[str, Array]) -> tuple[Array, Array]:
        """Mean and sd of every arm, (N, k), by scikit-learn. n pulls of an arm are one with their mean and noise^2 / n."""
        places = self._places()
        mean, sd = np.empty_like(carry["pulls"]), np.empty_like(carry["pulls"])
        for i, (n, total) in enumerate(zip(carry["pulls"], carry["reward"], strict=True)):
            pulled = np.flatnonzero(n)
            process = self._regressor(self.noise**2 / n[pulled] if len(pulled) else 1e-10)
            with warnings.catch_warnings():  # that a length scale lies at its bound
                warnings.simplefilter("ignore")
                if len(pulled):
                    process.fit(places[pulled], total[pulled] / n[pulled] - 0.5)
                mean[i], sd[i] = process.predict(places, return_std=True)
        return mean + 0.5, sd

    learn, state_dict, load_state_dict = shared.learn_nothing, shared.state_of, shared.load_state
