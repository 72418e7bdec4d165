"""Action masks as agents use them: bool (..., actions), true where an action is legal; None: all always are."""

from __future__ import annotations

import numpy as np

from ..store.arrays import Array


def only_legal(values: Array, mask: Array | None) -> Array:
    """Values (B, actions) with -inf for illegal actions, so that a maximum never finds one; `mask` (..., actions) or None."""
    return values if mask is None else np.where(mask.reshape(values.shape), values, -np.inf)


def random_legal(mask: Array, u: Array) -> Array:
    """The action that uniform numbers `u` (...) in [0, 1) choose among the legal ones of `mask` (..., actions), int64 (...)."""
    count = mask.cumsum(-1)  # of legal actions up to each one
    chosen: Array = (count > (u * count[..., -1]).astype(np.int64)[..., None]).argmax(-1)
    return chosen
