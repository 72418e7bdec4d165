"""Arrays that come from a file, held against what is expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def check_growing(state: dict[str, Array], expected: dict[str, Array], what: str) -> None:
    """As `core.check_arrays`, but names with a slash are arrays whose first axis may have any length, the same for all that
    share what stands before the slash. Raises ValueError."""
    lengths: dict[str, int] = {}
    fitted = {}
    for name, array in expected.items():
        group, slash, _ = name.partition("/")
        if slash and name in state and state[name].ndim:
            length = lengths.setdefault(group, len(state[name]))
            fitted[name] = np.empty((length, *array.shape[1:]), array.dtype)
        else:
            fitted[name] = array
    check_arrays(state, fitted, what)


def check_arrays(state: dict[str, Array], expected: dict[str, Array], what: str) -> None:
    """Raise ValueError unless `state` has the names, shapes and dtypes of `expected`."""
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())[0]
        raise ValueError(f"{what}: array {odd!r} is {'unknown' if odd in state else 'missing'}: another configuration?")
    for name, array in expected.items():
        if state[name].shape != np.shape(array) or state[name].dtype != np.asarray(array).dtype:
            raise ValueError(
                f"{what}: {name} is {state[name].dtype}{state[name].shape}, "
                f"this configuration has {np.asarray(array).dtype}{np.shape(array)}"
            )
