"""What the torch learners share: observations as features, and the order of minibatches."""

from __future__ import annotations

import torch
from torch import Tensor

from ...store.arrays import Array

SHARED_FROM = 1024  # rows of a forward pass; fewer are done sooner than a second thread is awake


def features(obs: Tensor, scale: Array | None = None) -> Tensor:
    """(B, ...) of any number type -> float32 (B, D).

    `scale`, float32 (2, D): what to subtract, then what to multiply by; the result is clipped to +-10.
    """
    rows = obs.reshape(len(obs), -1).float()
    if scale is not None:
        return ((rows - torch.from_numpy(scale[0])) * torch.from_numpy(scale[1])).clamp_(-10.0, 10.0)
    return rows.clone() if rows.data_ptr() % 64 else rows  # a product's last bit depends on where its operands begin


def mask_tensor(mask: Array | None, rows: int) -> Tensor | None:
    """An action mask, bool (..., actions) of `rows` samples, as (rows, actions)."""
    return None if mask is None else torch.from_numpy(mask).reshape(rows, -1)


def permutation(num_samples: int, seed: int, block: int = 1) -> Array:
    """0 .. num_samples - 1 in random order, int64, where runs of `block` neighbours stay together."""
    blocks = torch.randperm(-(-num_samples // block), generator=torch.Generator().manual_seed(seed))
    index: Array = (blocks.unsqueeze(1) * block + torch.arange(block)).view(-1).numpy()
    return index[index < num_samples]
