"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114), with beta a beta-VAE (Higgins et al. 2017)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..component import component
from ..distributions import Gaussian
from ..observations import Observation
from .autoencoding import AutoencoderConfig, AutoencoderModule, load_module_state, module_parameters, module_state


@component("encoder", "vae")
class VAE:
    """Codes z with prior N(0, I) and posterior q(z | x) = N(mu(x), diag s(x)^2).

    It learns to maximise E_q ln p(x | z) - beta KL(q(z | x) || N(0, I)), at beta = 1 the evidence lower bound: ln p(x) at
    least. Obs (B, *shape) as `observation` has them, codes float32 (B, size). Gradients flow through `encode`.
    """

    class Config(AutoencoderConfig):
        size: int = Field(32, ge=1, le=4096, description="numbers in a code")
        beta: float = Field(1.0, ge=0, description="weight of the KL divergence to the prior")
        warmup: int = Field(
            300, ge=0, description="updates in which beta rises from 0: before codes say something, they only cost"
        )

    can_decode: ClassVar[bool] = True

    def __init__(self, config: Config, observation: Observation, seed: int) -> None:
        self.config, self.observation, self.size = config, observation, config.size
        self.autoencoder = AutoencoderModule(config, observation, self.size, 2 * self.size, seed)
        last = list(self.autoencoder.model["encoder"].parameters())[-2:]  # weight and bias of mu and ln s
        with torch.no_grad():  # initial posterior std 0.1: the decoder gets a usable signal from the first step
            last[0][self.size :] *= 0.1
            last[1][self.size :] = math.log(0.1)

    def posterior(self, obs: Tensor) -> Gaussian:
        """q(z | obs): mean and log deviation, both (B, size)."""
        mean, log_std = self.autoencoder.encode(obs).chunk(2, 1)
        return Gaussian(mean, log_std.clamp(-10.0, 5.0))

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The posterior's mean, or a sample from it where a generator is given."""
        q = self.posterior(obs)
        return q.mode() if generator is None else q.sample(generator)

    def decode(self, code: Tensor) -> Tensor:
        return self.autoencoder.decode(code)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n observations (n, *shape) that the model makes up: the likeliest for codes from the prior."""
        return self.decode(torch.randn(n, self.size, generator=generator))

    def update(self, obs: Tensor, generator: torch.Generator, rate: float = 1.0) -> dict[str, float]:
        """One step of Adam, of `rate` times its learning rate, on B observations. All metrics are nats per observation, but
        `active`: how many of a code's numbers carry more than 0.01 nats."""
        self.autoencoder.update_statistics(obs)
        beta = self.config.beta * min(1.0, (self.autoencoder.parameters.steps + 1) / (self.config.warmup + 1))
        q = self.posterior(obs)
        z = q.sample(generator)  # z = mu + s eps, eps ~ N(0, I): gradients reach mu and s
        log_likelihood = self.autoencoder.log_prob(z, obs)  # (B,)
        kl = kl_to_standard(q)  # (B, size)
        loss = (beta * kl.sum(1) - log_likelihood).mean()
        grad_norm = self.autoencoder.step(loss, rate)
        nats, per_number = kl.detach().sum(1).mean().item(), kl.detach().mean(0)
        likelihood = log_likelihood.mean().item()
        return {
            "loss": loss.item(), "elbo": likelihood - nats, "log_likelihood": likelihood, "kl": nats,
            "active": float((per_number > 0.01).sum()), "grad_norm": grad_norm,
        }  # fmt: skip

    num_parameters = property(module_parameters)
    state_dict, load_state_dict = module_state, load_module_state


def kl_to_standard(q: Gaussian) -> Tensor:
    """KL(N(mu, s^2) || N(0, 1)) = (mu^2 + s^2 - 1) / 2 - ln s, elementwise, in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (q.mean.square() + (2 * q.log_std).exp() - 1) - q.log_std
