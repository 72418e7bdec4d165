"""Autoencoder, and with `noise` or `dropout` a denoising autoencoder (Vincent et al. 2008)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..component import component
from ..observations import Observation
from .autoencoding import AutoencoderConfig, AutoencoderModule, load_module_state, module_parameters, module_state


@component("encoder", "autoencoder")
class Autoencoder:
    """Codes from which a decoder can tell the observation: it learns to minimise -ln p(x | f(corrupt(x))).

    Obs (B, *shape) as `observation` has them, codes float32 (B, size). Gradients flow through `encode`.
    """

    class Config(AutoencoderConfig):
        size: int = Field(32, ge=1, le=4096, description="numbers in a code")
        noise: float = Field(0.0, ge=0, description="deviation of noise on what the encoder reads while it learns")
        dropout: float = Field(0.0, ge=0, lt=1, description="up to this share of pixels is 0 while it learns")

    can_decode: ClassVar[bool] = True

    def __init__(self, config: Config, observation: Observation, seed: int) -> None:
        self.config, self.observation, self.size = config, observation, config.size
        self.autoencoder = AutoencoderModule(config, observation, self.size, self.size, seed)

    def encode(self, obs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.autoencoder.encode(obs)

    def decode(self, code: Tensor) -> Tensor:
        return self.autoencoder.decode(code)

    def update(self, obs: Tensor, generator: torch.Generator) -> dict[str, float]:
        """One step of Adam on B observations. The code is made of a corrupted one, and judged by the clean one."""
        autoencoder, o = self.autoencoder, self.config
        autoencoder.update_statistics(obs)
        share = o.dropout * torch.rand(len(obs), generator=generator)  # some see nearly all: from these it learns what to say
        rows = autoencoder.rows(blank(obs, self.observation, share, generator) if o.dropout else obs)
        if o.noise:
            rows = rows + o.noise * torch.randn(rows.shape, generator=generator)
        code = autoencoder.model["encoder"](rows)
        loss = -autoencoder.log_prob(code, obs).mean()
        return {"loss": loss.item(), "grad_norm": autoencoder.step(loss)}

    num_parameters = property(module_parameters)
    state_dict, load_state_dict = module_state, load_module_state


def blank(obs: Tensor, observation: Observation, share: Tensor, generator: torch.Generator) -> Tensor:
    """`obs` (B, *shape) with each pixel 0 with its row's probability `share` (B,): in all planes of an image or a grid, or
    a number of a vector."""
    per_pixel = observation.kind != "vector" and len(observation.shape) == 3
    pixels = (len(obs), 1, *observation.shape[1:]) if per_pixel else obs.shape
    return obs * (torch.rand(pixels, generator=generator) >= share.view(-1, *[1] * len(observation.shape)))
