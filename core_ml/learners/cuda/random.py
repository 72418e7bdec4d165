"""Counter-based random numbers for tensors on a device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ....native.splitmix64 import GOLDEN, MIX_1, MIX_2
from ...distributions import Categorical, Distribution


def sample(distribution: Distribution, seed: Tensor, t: int = 0) -> Tensor:
    """Actions of B rows from numbers t B, t B + 1, ... of the stream `seed`, an int64 scalar on the device."""
    if isinstance(distribution, Categorical):
        rows = len(distribution.log_p)
        return distribution.quantile(_uniform(seed, t * rows, rows).unsqueeze(1))
    mean, log_std = distribution.mean, distribution.log_std  # type: ignore[attr-defined]
    count = mean.numel()
    u, v = _uniform(seed, 2 * t * count, 2 * count).view(2, *mean.shape)
    normal = (-2.0 * torch.log1p(-u)).sqrt() * (2 * math.pi * v).cos()  # Box & Muller 1958; u < 1
    action: Tensor = mean + log_std.exp() * normal
    return action


def permutation(num_samples: int, seed: Tensor) -> Tensor:
    """0 .. num_samples - 1 in random order, int64 on the device. Sorting random keys needs no transfer to the host."""
    return _bits(seed, 0, num_samples).argsort()


def _uniform(seed: Tensor, first: int, count: int) -> Tensor:
    """Numbers `first` .. `first` + `count` - 1 of the stream `seed`, float32 in [0, 1), multiples of 2^-24."""
    return ((_bits(seed, first, count) >> 40) & 0xFFFFFF).float() * 2.0**-24


def _bits(seed: Tensor, first: int, count: int) -> Tensor:
    """64 random bits a number as int64: SplitMix64, which may start at any number; arithmetic wraps."""
    counter = torch.arange(first + 1, first + count + 1, device=seed.device)
    return _mixed(_mixed(seed) + counter * _signed(int(GOLDEN)))


def _mixed(x: Tensor) -> Tensor:
    """`splitmix64.mix` for int64 tensors: torch shifts no uint64 on a GPU."""
    x = (x ^ ((x >> 30) & (1 << 34) - 1)) * _signed(int(MIX_1))  # the masks make shifts of negative numbers logical
    x = (x ^ ((x >> 27) & (1 << 37) - 1)) * _signed(int(MIX_2))
    return x ^ ((x >> 31) & (1 << 33) - 1)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
