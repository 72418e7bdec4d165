"""A grid's own cells as its code: nothing has to be learned to tell it, and nothing is lost."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..observations import Observation

MOST = 256  # classes of a cell


class Cells:
    """One categorical for each cell (row by row): what all planes hold there, as one number.

    Raises ValueError where an observation is no grid, or where a cell may hold more than 256 different things.
    """

    def __init__(self, observation: Observation) -> None:
        if observation.kind != "grid":
            raise ValueError(f"cells of a {observation.kind}: they are of symbolic grids, take latent=levels")
        self.observation = observation
        self.planes, height, width = observation.planes(False)
        self.groups, self.classes = height * width, observation.codes**self.planes
        if self.classes > MOST:
            raise ValueError(
                f"{self.planes} planes of {observation.codes} codes make {self.classes:,} different cells, more than {MOST}: "
                "take latent=levels"
            )

    def encode(self, obs: Tensor) -> Tensor:
        """uint8 (B, *shape) -> float32 (B, groups, classes) of zeros and ones."""
        self.observation.check(obs)
        weight = self.observation.codes ** torch.arange(self.planes)
        number = (obs.reshape(len(obs), self.planes, self.groups).long() * weight.view(-1, 1)).sum(1)
        return one_hot(number, self.classes).float()

    def decode(self, code: Tensor) -> Tensor:
        """(B, groups classes) -> uint8 (B, *shape). `encode` backwards."""
        number = code.view(len(code), self.groups, self.classes).argmax(-1)
        planes = [(number // self.observation.codes**k) % self.observation.codes for k in range(self.planes)]
        return torch.stack(planes, 1).to(torch.uint8).view(len(code), *self.observation.shape)
