"""Torch modules as named arrays, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from ...store.arrays import Array, check_arrays
from ..optim.parameters import orthogonal

M = TypeVar("M", bound=nn.Module)


def fresh(build: Callable[[], M], seed: int) -> M:
    """A module with orthogonal matrices, zero biases and layer norms that are the identity, from a generator of its own.

    Matrices of more than two axes count as (first axis, rest).
    """
    with torch.device("meta"):  # no draws from torch's global generator
        module = build()
    module.to_empty(device="cpu")
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for part in module.modules():
            for p in part.parameters(recurse=False):
                if p.ndim > 1:
                    p.copy_(torch.from_numpy(orthogonal(tuple(p.shape), 1.0, rng)))
                else:
                    p.zero_()
            if isinstance(part, nn.LayerNorm):
                part.weight.fill_(1.0)
    return module


def arrays(module: nn.Module) -> dict[str, Array]:
    """A module's parameters by name, copied."""
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


def put_back(module: nn.Module, state: dict[str, Array], what: str) -> None:
    """Give a module the parameters that `arrays` took. Raises ValueError for other names, shapes or dtypes."""
    check_arrays(state, arrays(module), what)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.from_numpy(state[name]))
