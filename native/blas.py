"""numba asks for a BLAS when it first compiles or loads a kernel, by importing scipy.linalg, which takes a quarter of a second.

Few kernels multiply matrices, and those that do are asked again when they are compiled.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def ask_later() -> None:
    """Let numba believe, where scipy is installed, that its BLAS is as it should be. Nothing happens where numba has asked."""
    try:
        linalg: Any = importlib.import_module("numba.np.linalg")
        original = linalg.ensure_blas
        if importlib.util.find_spec("scipy") is None:
            return
        linalg.ensure_blas = lambda: None
        try:
            importlib.import_module("numba.np.arraymath")
        finally:
            linalg.ensure_blas = original
    except (ImportError, AttributeError):  # another numba has another way
        pass
