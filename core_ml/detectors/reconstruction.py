"""Reconstruction error as a detector: an autoencoder reconstructs well what it was trained on, and badly what it never saw."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from ...store.arrays import Array
from ..component import component
from ..encoders.autoencoder import Autoencoder
from ..encoders.classical import Classical
from ..encoders.vae import VAE
from ..encoders.vq_vae import VQVAE
from ..observations import Observation
from .conformal import Conformal, calibrate_threshold, flag_by_threshold
from .protocol import DetectorConfig, ObservedSteps, with_threshold, without_threshold

ENCODERS: dict[str, Any] = {"autoencoder": Autoencoder, "vae": VAE, "vq-vae": VQVAE, "classical": Classical}


@component("detector", "reconstruction")
class Reconstruction:
    """Score: -ln p(x | code of x) in nats, of a coder that learns by gradient; of a scikit-learn one the squared error of the
    observation's numbers.

    A likelihood says how well an observation is rebuilt, not how likely it is: what is simpler than all that was learned from
    can score low (Nalisnick et al. 2019, "Do deep generative models know what they don't know?").
    """

    class Config(DetectorConfig):
        coder: Literal["autoencoder", "vae", "vq-vae", "classical"] = Field("autoencoder", description="what reconstructs")
        options: dict[str, Any] = Field({"size": 8}, description="the coder's own, such as size; classical: estimator=pca")
        steps: int = Field(50, ge=1, le=1_000_000, description="of gradient, for each update; classical learns in one")
        batch_size: int = Field(128, ge=1, description="observations of a gradient step")

    def __init__(self, config: Config, observation: Observation, seed: int) -> None:
        self.config, self.observation = config, observation
        cls = ENCODERS[config.coder]
        try:
            options = cls.Config(**config.options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(
                f"detector reconstruction: coder {config.coder}: options.{where}: {first['msg']}; "
                f"it has {', '.join(cls.Config.model_fields)}"
            ) from None
        self.encoder = cls(options, observation, seed)
        self.threshold = Conformal(config.alpha)

    def update(self, seen: ObservedSteps, generator: torch.Generator) -> dict[str, float]:
        """`steps` gradient steps, each on `batch_size` of the observations drawn with replacement; the last one's metrics."""
        metrics: dict[str, float] = {}
        if isinstance(self.encoder, Classical):
            return self.encoder.update(seen.obs, generator)
        for _ in range(self.config.steps):
            drawn = torch.randint(len(seen.obs), (min(self.config.batch_size, len(seen.obs)),), generator=generator)
            metrics = self.encoder.update(seen.obs[drawn], generator)
        return metrics

    def score(self, seen: ObservedSteps) -> Array:
        with torch.no_grad():
            error: Array = self._error(seen.obs).double().numpy()
        return error

    def _error(self, obs: Tensor) -> Tensor:
        code = self.encoder.encode(obs)
        if not isinstance(self.encoder, Classical):
            likelihood: Tensor = self.encoder.autoencoder.log_prob(code, obs)
            return -likelihood
        rows = self.observation.rows(obs, self.encoder.one_hot).numpy().astype(np.float64)
        back = self.encoder.estimator.inverse_transform(code.numpy().astype(np.float64))
        return torch.from_numpy(np.square(rows - back).sum(1))

    calibrate, flag = calibrate_threshold, flag_by_threshold

    def state_dict(self) -> dict[str, Array]:
        return with_threshold(self.encoder.state_dict(), self.threshold)

    def load_state_dict(self, state: dict[str, Array]) -> None:
        own = without_threshold(state, self.encoder.state_dict(), self.threshold, "detector reconstruction")
        self.encoder.load_state_dict(own)
