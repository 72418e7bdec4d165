"""Plain functions of the tabular agents as machine code: compiled at the first call, kept on disk.

An algorithm's sweep stands in its own file, as plain Python over flat arrays. `@kernel` makes it compile when it is first
called; `@inner` marks the functions that sweeps share. numba is imported then and not before.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def inner(function: F) -> F:
    """Mark a plain function that kernels call; it stays callable from Python."""
    function.__tabular_inner__ = True  # type: ignore[attr-defined]
    return function


class Kernel:
    """A function that Python calls; `python` is the same, interpreted."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.python = function
        self._compiled: Any = None
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is None:
            self._compiled = _compile(self.python)
        return self._compiled(*arguments)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Decorator: see `Kernel`."""
    return Kernel(function)


@functools.cache
def _sources_key() -> str:
    """sha256 of this package's sources and numba's version: what all its kernels are made of."""
    import numba

    sha = hashlib.sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(file.read_bytes())
    return sha.hexdigest()


def _bound(function: Any) -> Any:
    """`function`, with the inner functions that it names compiled."""
    from ...envs.engine.compile import rebound, referenced

    inners = {name: value for name, value in referenced(function).items() if hasattr(value, "__tabular_inner__")}
    return rebound(function, {name: _inlined(value) for name, value in inners.items()})


@functools.cache
def _inlined(function: Any) -> Any:
    import numba

    return numba.njit(error_model="numpy")(_bound(function))


def _compile(function: Any) -> Any:
    import numba

    from ...native.cache import keep_on_disk

    bound = _bound(function)
    # Files on disk are named by the first, machine code by the second: see `keep_on_disk`.
    bound.__name__ = f"{function.__module__.rpartition('.')[2]}_{function.__name__}"
    bound.__qualname__ = f"{bound.__name__}_{_sources_key()[:20]}"
    return keep_on_disk(numba.njit(nogil=True, error_model="numpy")(bound), _sources_key())
