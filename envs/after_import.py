"""Call a function when a module has been imported: a finder with a loader of its own, by the import system's rules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Loader:
    """Loads a module with its own loader, gives it back that loader, then calls `done`."""

    def __init__(self, loader: Any, done: Callable[[], None]) -> None:
        self.loader, self.done = loader, done

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.done()


class _Finder:
    """The first finder until `name` is imported; then it is gone."""

    def __init__(self, name: str, done: Callable[[], None]) -> None:
        self.name, self.done = name, done

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.done)  # type: ignore[assignment]  # has the methods that importing calls
        return spec


def after_import(name: str, done: Callable[[], None]) -> None:
    """Call `done` once, right after the top-level module `name` has been imported for the first time."""
    if not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, done))
