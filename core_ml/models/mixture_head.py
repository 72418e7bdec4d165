"""A mixture density head: distributions over vectors that may have several peaks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ...store.arrays import Array
from ..component import ComponentConfig
from ..nets.modules import arrays, fresh, put_back


class Mixture(NamedTuple):
    """G independent groups of numbers, each of E numbers from a mixture of K normal distributions without correlations.

    Together they are a distribution over (..., G E): G = 1 is one mixture over the whole vector, E = 1 one for each number.
    """

    log_weight: Tensor  # (..., G, K), sums to 1
    mean: Tensor  # (..., G, K, E)
    log_std: Tensor  # (..., G, K, E)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of x (..., G E): sum_g log sum_k w_k prod_e N(x_e; mu_ke, sigma_ke)  (Bishop 1994, eq. 22, 23)."""
        x = x.reshape(*x.shape[:-1], *self._groups()).unsqueeze(-2)  # (..., G, 1, E)
        z = (x - self.mean) * (-self.log_std).exp()
        log_normal = (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        return (self.log_weight + log_normal).logsumexp(-1).sum(-1)

    def sample(self, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(..., G E). Weights are taken to the power 1 / temperature, variances times temperature (Ha & Schmidhuber 2018,
        "World models", appendix A.3); with temperature 0 this is the mode."""
        if temperature == 0:
            return self.mode()
        weight = (self.log_weight / temperature).softmax(-1)
        u = torch.rand(*weight.shape[:-1], 1, generator=generator)
        cumulative = weight.cumsum(-1)
        component = (cumulative[..., :-1] <= u * cumulative[..., -1:]).sum(-1)
        mean, log_std = self._of(component, self.mean), self._of(component, self.log_std)
        noise = torch.randn(mean.shape, generator=generator)
        return (mean + math.sqrt(temperature) * log_std.exp() * noise).flatten(-2)

    def mode(self) -> Tensor:
        """The mean of each group's heaviest component, (..., G E): the limit of `sample`, not always the highest peak."""
        return self._of(self.log_weight.argmax(-1), self.mean).flatten(-2)

    def expectation(self) -> Tensor:
        """(..., G E)"""
        return (self.log_weight.exp().unsqueeze(-1) * self.mean).sum(-2).flatten(-2)

    def _groups(self) -> tuple[int, int]:
        return self.mean.shape[-3], self.mean.shape[-1]

    def _of(self, component: Tensor, parts: Tensor) -> Tensor:
        """Of `parts` (..., G, K, E) those of the component (..., G)."""
        index = component[..., None, None].expand(*component.shape, 1, parts.shape[-1])
        return parts.gather(-2, index).squeeze(-2)


class MixtureHead:
    """Features (..., F) -> `Mixture` over (..., D), by one full layer."""

    class Config(ComponentConfig):
        components: int = Field(5, ge=1, description="normal distributions in a mixture")
        joint: bool = Field(
            False, description="one mixture over the whole vector; else one for each number, as in World Models"
        )
        min_std: float = Field(1e-3, gt=0, description="added to standard deviations: densities stay finite")

    def __init__(self, config: Config, features: int, numbers: int, seed: int) -> None:
        self.config = config
        self.groups = (1, numbers) if config.joint else (numbers, 1)
        outputs = self.groups[0] * config.components * (1 + 2 * self.groups[1])
        self.net = fresh(lambda: torch.nn.Linear(features, outputs), seed)

    def __call__(self, features: Tensor) -> Mixture:
        (g, e), k = self.groups, self.config.components
        weight, mean, log_std = self.net(features).split([g * k, g * k * e, g * k * e], -1)
        std = torch.nn.functional.softplus(log_std) + self.config.min_std
        parts = (x.unflatten(-1, (g, k, e)) for x in (mean, std.log()))
        return Mixture(weight.unflatten(-1, (g, k)).log_softmax(-1), *parts)

    def state_dict(self) -> dict[str, Array]:
        return arrays(self.net)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        put_back(self.net, state, "mixture head")
