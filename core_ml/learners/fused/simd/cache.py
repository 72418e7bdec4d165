"""The fused kernels on disk: valid as long as their sources do not change."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from .....native import splitmix64
from .....native.cache import keep_on_disk


@functools.cache
def sources_key() -> str:
    """sha256 of the sources of all fused kernels, of what they compile from elsewhere, and of numba's version."""
    sha = hashlib.sha256(numba.__version__.encode())
    for file in [*sorted(Path(__file__).parents[1].glob("*/*.py")), Path(splitmix64.__file__)]:
        sha.update(file.read_bytes())
    return sha.hexdigest()


def kernel(function: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled at the first call, run without the interpreter's lock."""
    function.__qualname__ = f"{function.__name__}_{sources_key()[:20]}"  # see `keep_on_disk`
    # Without numba's memory management: a kernel that allocates would not compile.
    return keep_on_disk(numba.njit(nogil=True, error_model="numpy", _nrt=False)(function), sources_key())
