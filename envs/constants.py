"""Constants of a world as plain Python values."""

from __future__ import annotations

from typing import Any

import numpy as np


def plain(constants: Any) -> Any:
    """The tuple with numpy's numbers as Python's: what rules get on every device. Raises TypeError beyond 64 bits."""
    values = [v.item() if isinstance(v, np.generic) else v for v in constants]
    for name, value in zip(constants._fields, values, strict=True):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise TypeError(f"{type(constants).__name__}.{name} is {value}: whole numbers have 63 bits; use an array of uint64")
    return type(constants)(*values)
