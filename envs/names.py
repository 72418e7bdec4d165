"""Names: registering, plugins, "did you mean", and one line for a bad option."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import pydantic

from ..configs.suggest import suggest


class UnknownName(ValueError):
    """Nothing is registered under that name; the message suggests near ones."""


class PluginError(NamedTuple):
    """A plugin that could not be imported: it is listed, and harms nothing else."""

    name: str
    reason: str


def claim(table: dict[str, Any], kind: str, name: str, cls: Any) -> None:
    """Enter `cls` into a registry's table as `name`. Raises ValueError if another class has that name."""
    other = table.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"{kind} name {name!r} is taken by {other.__module__}.{other.__qualname__}: choose another")
    cls.name = name
    table[name] = cls


def load_plugins(group: str) -> tuple[PluginError, ...]:
    """Import every entry point of `group`; those that fail come back with their reasons."""
    broken = []
    for point in entry_points(group=group):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # a stranger's code: whatever it raises is its reason
            broken.append(PluginError(point.name, f"{type(error).__name__}: {error}"))
    return tuple(broken)


def load_plugin_file(path: Path) -> None:
    """Run a Python file that registers worlds, agents or components, once in a process.

    It becomes a module whose name follows from its path, so that its classes can be pickled. Raises ValueError, one line, where
    there is no such file or where it raises.
    """
    file = path.expanduser().resolve()
    name = f"gumdrop_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return
    if file.suffix != ".py" or not file.is_file():
        raise ValueError(f"plugin {path}: {'no such file' if file.suffix == '.py' else 'not a Python file, NAME.py'}")
    spec = spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # of a file that ends in .py
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a stranger's code: whatever it raises is its reason
        del sys.modules[name]
        raise ValueError(f"plugin {path}: {type(error).__name__}: {' '.join(str(error).split())}"[:300]) from None


def load_plugin_files(paths: Iterable[str | Path]) -> None:
    """`load_plugin_file` for each of them."""
    for path in paths:
        load_plugin_file(Path(path))


def is_external(id: str) -> bool:
    """True for ids of external environments: `Name-v1`, `namespace/Name-v1`, `module:Id`, `module:function`."""
    return not id.startswith("gumdrop/") and (":" in id or "/" in id or id.rpartition("-v")[2].isdigit())


def explain(error: pydantic.ValidationError, what: str, known: list[str]) -> str:
    """One line for the first fault that pydantic found."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{what} has no option {key!r}{suggest(key.rpartition('.')[2], known)}"
    message = first["msg"].removeprefix("Value error, ")
    got = f" (got {first['input']!r:.80})" if key else ""  # of a rule about several options, the message names them
    return f"{what}: {key + ': ' if key else ''}{message[0].lower()}{message[1:]}{got}"
