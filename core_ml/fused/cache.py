"""Compiled once per machine: kernels kept on disk as long as this package's sources stay what they are.

numba's own cache looks at the file of the outermost function only, and would keep a kernel whose helper in another file has
changed. Here the key is the text of all files beside this one.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CacheImpl, CompileResultCacheImpl, FunctionCache


def cache_folder() -> Path:
    """Folder of compiled kernels; GUMDROP_CACHE moves it."""
    base = os.environ.get("GUMDROP_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gumdrop"
    )
    return Path(base) / "kernels"


@functools.cache
def sources_key() -> str:
    """sha256 of this package's sources and numba's version."""
    sha = hashlib.sha256(numba.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(file.read_bytes())
    return sha.hexdigest()


class _Locator:
    _py_file = "gumdrop"  # numba names it when it warns that a kernel cannot be kept

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return sources_key()

    def get_disambiguator(self) -> str:
        return sources_key()[:20]

    def ensure_cache_path(self) -> None:
        cache_folder().mkdir(parents=True, exist_ok=True)


class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
    def __init__(self, py_func: Any) -> None:
        self._locator = _Locator()
        self._filename_base = CacheImpl.get_filename_base(self, py_func.__name__, "")


class _DiskCache(FunctionCache):  # type: ignore[misc]
    _impl_class = _Impl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file: compile anew
            return None


def kernel(function: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled at the first call, run without the interpreter's lock."""
    # A name of its own: kernels of two versions must not share symbols.
    function.__qualname__ = f"{function.__name__}_{sources_key()[:20]}"
    # Without numba's memory management: a kernel that allocates would not compile.
    dispatcher = numba.njit(nogil=True, error_model="numpy", _nrt=False)(function)
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        dispatcher._cache = _DiskCache(function)
    except OSError:
        pass  # a read-only home: compile anew in every process
    return dispatcher


def kept(dispatcher: Any) -> bool:
    """Whether some form of the kernel lies on disk: if not, its first call takes seconds."""
    file = getattr(dispatcher._cache, "_cache_file", None)
    return file is not None and Path(file._index_path).exists()
