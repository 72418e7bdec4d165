"""What the components of an agent share: how they take options, and how they check a state that is given to them."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from .parameters import Array


class ComponentConfig(BaseModel):
    """Options of a component. Subclass it; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_arrays(state: dict[str, Array], expected: dict[str, Array], what: str) -> None:
    """Raise ValueError unless `state` has the names, shapes and dtypes of `expected`."""
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())[0]
        raise ValueError(f"{what}: array {odd!r} is {'unknown' if odd in state else 'missing'}: another configuration?")
    for name, array in expected.items():
        given = np.asarray(state[name])
        if given.shape != array.shape or given.dtype != array.dtype:
            raise ValueError(f"{what}: {name} is {given.dtype}{given.shape}, this configuration has {array.dtype}{array.shape}")
