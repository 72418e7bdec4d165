"""Kernels on disk: compiled once per machine, valid exactly as long as a key stands that their owners choose.

numba's own cache looks at the file of the outermost function only, and would keep a kernel whose helper in another file has
changed. Here the key is a hash of everything that the owner says a kernel is made of. Files are in numba's own format.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numba.core.caching import CacheImpl, CompileResultCacheImpl, FunctionCache
from numba.core.runtime import rtsys


def cache_folder() -> Path:
    """Folder of compiled kernels; GUMDROP_CACHE moves it."""
    base = os.environ.get("GUMDROP_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gumdrop"
    )
    return Path(base) / "kernels"


class _Locator:
    """Where numba keeps a kernel: the user's cache folder, under its key."""

    _py_file = "gumdrop"  # numba names it when it warns that a kernel cannot be kept

    def __init__(self, key: str) -> None:
        self._key = key

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return self._key

    def get_disambiguator(self) -> str:
        return self._key[:20]

    def ensure_cache_path(self) -> None:
        cache_folder().mkdir(parents=True, exist_ok=True)


def keep_on_disk(dispatcher: Any, key: str) -> Any:
    """`dispatcher`, with a place on disk. Its function's name should hold the key, too: kernels of two versions that one
    process loads must not share symbols."""

    class Impl(CompileResultCacheImpl):  # type: ignore[misc]
        def __init__(self, py_func: Any) -> None:
            self._locator = _Locator(key)
            self._filename_base = CacheImpl.get_filename_base(self, py_func.__name__, "")

    class DiskCache(FunctionCache):  # type: ignore[misc]
        _impl_class = Impl

        def _index_key(self, sig: Any, codegen: Any) -> Any:
            return sig, codegen.magic_tuple(), key

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            # numba would first import what it needs to compile (a third of a second, a quarter more with scipy's linear
            # algebra), and does so before it compiles anyway. What machine code calls at run time has to be there.
            rtsys.initialize(target_context)
            try:
                return self._load_overload(sig, target_context)
            except Exception:  # a damaged file, or rules from a module that cannot be imported here: compile anew
                return None

    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        dispatcher._cache = DiskCache(dispatcher.py_func)
    except OSError:
        pass  # a read-only home: compile anew in every process
    return dispatcher


def is_cached(dispatcher: Any) -> bool:
    """Whether some form of the kernel lies on disk: if not, its first call takes seconds."""
    file = getattr(dispatcher._cache, "_cache_file", None)
    return file is not None and Path(file._index_path).exists()
