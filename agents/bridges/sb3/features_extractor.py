"""An encoder as a features extractor of stable-baselines3."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor


class Codes(BaseFeaturesExtractor):
    """Observations as an encoder's codes, float32 (B, size). The library's gradient does not reach the encoder."""

    def __init__(self, observation_space: Any, encoder: Any) -> None:
        super().__init__(observation_space, features_dim=int(encoder.size))
        self.encoder = encoder

    def forward(self, obs: Tensor) -> Tensor:
        """What the library has made of observations (B, ...), floats, as the encoder was made for them."""
        wanted = torch.float32 if self.encoder.observation.kind == "vector" else torch.uint8
        rows = obs.reshape(len(obs), *self.encoder.observation.shape).to(wanted)
        with torch.no_grad():
            code: Tensor = self.encoder.encode(rows)
        return code


def features_extractor(encoder: Any) -> dict[str, Any]:
    """`policy_kwargs` with which an algorithm of stable-baselines3 reads `encoder`'s codes.

    Images are not divided by 255 on the way: the encoder reads observations as they are.
    """
    return {
        "features_extractor_class": Codes, "features_extractor_kwargs": {"encoder": encoder}, "normalize_images": False,
    }  # fmt: skip
