"""A network whose last layer is Bayesian: features that are trained to make many linear regressions easy at once.

y = w phi(x) + e with w ~ N(0, sd^2 I), e ~ N(0, noise^2), a weight vector w for each regression, phi shared by all. Training
maximises the marginal likelihood, in which every w is integrated out (Harrison, Sharma & Pavone 2018, "Meta-learning priors for
efficient online Bayesian regression", with a prior that stays fixed). Posteriors given data are computed by `bayes_linear`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...store.arrays import Array
from ..optim.adam import FlatAdam
from ..optim.parallel import one_thread_each
from ..optim.parameters import Parameters
from .layers import mlp


class BayesFeatures:
    """phi: inputs (..., D) to features (..., hidden[-1] + 1), the first of them always 1; float64."""

    def __init__(self, inputs: int, hidden: Sequence[int], activation: str, sd: float, noise: float) -> None:
        with torch.device("meta"):  # no draws from torch's global generator
            net = mlp([inputs, *hidden], activation)
        self.net = net.to_empty(device="cpu").double()
        self.sd, self.noise = sd, noise
        shapes = {name: tuple(p.shape) for name, p in self.net.named_parameters()}
        self.parameters = Parameters(shapes, dtype=np.float64)  # the caller initialises it
        self.optimiser = FlatAdam(self.net, parameters=self.parameters)

    def features(self, x: Array) -> Array:
        one_thread_each()
        with torch.inference_mode():
            return self._phi(torch.from_numpy(np.array(x, np.float64))).numpy()

    def _phi(self, x: Tensor) -> Tensor:
        phi: Tensor = self.net(x)
        return torch.cat([torch.ones_like(phi[..., :1]), phi], -1)

    def nll(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Negative log marginal likelihood of each observation that counts, on average; nats.

        x (B, T, D), y (B, T), weight (B, M, T): 1 where observation t belongs to regression m. For one regression with features
        Phi: P = I / sd^2 + Phi^T Phi / noise^2,  b = Phi^T y / noise^2,
        -ln p(y) = (y y / noise^2 - b P^-1 b + ln det P + d ln sd^2 + T ln(2 pi noise^2)) / 2.
        """
        phi = self._phi(x)  # (B, T, d)
        d, precision = phi.shape[-1], self.noise**-2
        outer = (phi[..., :, None] * phi[..., None, :]).flatten(2)  # (B, T, d d)
        p = precision * torch.bmm(weight, outer).unflatten(2, (d, d)) + torch.eye(d, dtype=phi.dtype) / self.sd**2
        b = precision * torch.bmm(weight, phi * y[..., None])  # (B, M, d)
        factor = torch.linalg.cholesky(p)
        half = torch.linalg.solve_triangular(factor, b[..., None], upper=False)[..., 0]
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        count = weight.sum()
        fit = precision * torch.einsum("bmt,bt->", weight, y**2) - (half**2).sum()
        total = fit + (log_det + 2 * d * math.log(self.sd)).sum() + count * math.log(2 * math.pi * self.noise**2)
        mean: Tensor = total / (2 * count)
        return mean

    def train(self, x: Array, y: Array, weight: Array, learning_rate: float, max_grad_norm: float) -> tuple[float, float]:
        """One step of Adam on `nll`; returns it, and the gradient's norm."""
        one_thread_each()
        self.optimiser.zero_grad()
        loss = self.nll(*(torch.from_numpy(np.ascontiguousarray(part, np.float64)) for part in (x, y, weight)))
        loss.backward()
        return loss.item(), self.optimiser.step(learning_rate, max_grad_norm)
