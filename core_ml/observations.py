"""Three kinds of observation as numbers for networks and scikit-learn: float vectors, grids of small integers, images."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GRID_CODES = 64  # integers up to here are names of things, which have no order; beyond they are amounts


class Observation(NamedTuple):
    """What an encoder must know of the observations it is made for.

    vector: float32 of any shape. grid: integers 0 .. codes - 1, one a cell, uint8 (H, W), (K, H, W) planes, or (D,).
    image: uint8 (C, H, W), 0 .. 255.
    """

    kind: Literal["vector", "grid", "image"]
    shape: tuple[int, ...]
    codes: int = 0  # of a grid

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: npt.DTypeLike, high: int | float = math.inf) -> Observation:
        """The kind that observations of a space are, by its shape, number type and largest value.

        Integers below 64 are a grid, planes (C, H, W) up to 255 an image; whatever else counts as a vector.
        """
        if np.issubdtype(np.dtype(dtype), np.integer) and len(shape) in (1, 2, 3) and high < GRID_CODES:
            return cls("grid", shape, int(high) + 1)
        if np.dtype(dtype) == np.uint8 and len(shape) == 3:
            return cls("image", shape)
        return cls("vector", shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def planes(self, one_hot: bool) -> tuple[int, int, int]:
        """(C, H, W) of the numbers that `rows` makes, flat, of one observation; a vector of D numbers is (1, 1, D)."""
        if self.kind == "vector":
            return 1, 1, self.size
        k, h, w = (1,) * (3 - len(self.shape)) + self.shape
        return k * self.codes if one_hot and self.kind == "grid" else k, h, w

    def rows(self, obs: Tensor, one_hot: bool) -> Tensor:
        """obs (B, *shape) -> float32 (B, C H W) as `planes` has them.

        Vectors as they are, images divided by 255. Grids: with `one_hot` a plane of zeros and ones for each code (all codes
        of the first plane come first), else divided by codes - 1.
        """
        self.check(obs)
        flat = obs.reshape(len(obs), -1)
        if self.kind == "vector":
            rows = flat.float()
            return rows.clone() if rows.data_ptr() % 64 else rows  # a product's last bit depends on where its operands begin
        if self.kind == "image":
            return flat.float() / 255
        if not one_hot:
            return flat.float() / max(self.codes - 1, 1)
        k = self.planes(False)[0]
        cells = flat.reshape(len(obs), k, 1, -1) == torch.arange(self.codes).view(1, 1, -1, 1)  # (B, K, codes, H W)
        return cells.reshape(len(obs), -1).float()

    def unrows(self, rows: Tensor, one_hot: bool) -> Tensor:
        """The observation that is nearest to `rows`, (B, *shape): float32 for vectors, else uint8. `rows` backwards."""
        shape = (len(rows), *self.shape)
        if self.kind == "vector":
            return rows.reshape(shape)
        if self.kind == "grid" and one_hot:
            k = self.planes(False)[0]
            return rows.reshape(len(rows), k, self.codes, -1).argmax(2).to(torch.uint8).reshape(shape)
        top = 255 if self.kind == "image" else self.codes - 1
        return (rows * top).round().clamp(0, top).to(torch.uint8).reshape(shape)

    def check(self, obs: Tensor) -> None:
        """Raise ValueError unless `obs` is a batch of such observations."""
        if tuple(obs.shape[1:]) != self.shape:
            raise ValueError(f"observations of shape {tuple(obs.shape[1:])}: this component was made for {self.shape}")
        if self.kind != "vector" and obs.dtype != torch.uint8:
            raise ValueError(f"observations are {obs.dtype}: this component was made for a {self.kind}, torch.uint8")
        if self.kind == "grid" and len(obs) and int(obs.max()) >= self.codes:
            raise ValueError(f"code {int(obs.max())} in a grid: this component was made for codes 0 to {self.codes - 1}")


class BonusInputs(NamedTuple):
    """What a part of a reward is told of the steps it is made for: `cls(config, facts, seed)` is how each of them is made."""

    observation: Observation
    actions: int = 1  # how many there are, or how many numbers one has
    discrete: bool = True
    gamma: float = 0.99  # the agent's discount
