"""Names of worlds: `@world("candy")`, the folder scan, plugins, `make`, and "did you mean"."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple, TypeVar

import pydantic

from .core import BatchEnv, Preset, World

DEVICES = ("cpu", "cuda")
W = TypeVar("W", bound=type[World])
_WORLDS: dict[str, type[World]] = {}
_PRESETS: dict[str, tuple[type[World], Preset]] = {}


class UnknownName(ValueError):
    """Nothing is registered under that name; the message suggests near ones."""


class Broken(NamedTuple):
    """A plugin that could not be imported: it is listed, and harms nothing else."""

    name: str
    reason: str


def world(name: str) -> Callable[[W], W]:
    """Class decorator: register a `World` under `name`, and its presets under theirs."""

    def register(cls: W) -> W:
        for id in cls.presets:
            if id in _WORLDS:
                raise ValueError(f"preset name {id!r} of {cls.__qualname__} is a world's name: choose another")
        if name in _PRESETS:
            raise ValueError(f"world name {name!r} is a preset's of {_PRESETS[name][0].__qualname__}: choose another")
        claim(_WORLDS, "world", name, cls)
        for id, preset in cls.presets.items():
            owner = _PRESETS.get(id, (cls,))[0]
            if (owner.__module__, owner.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"preset name {id!r} is taken by {owner.__module__}.{owner.__qualname__}: choose another")
            _PRESETS[id] = cls, preset
        return cls

    return register


def claim(table: dict[str, Any], kind: str, name: str, cls: Any) -> None:
    """Enter `cls` into a registry's table as `name`. Raises ValueError if another class has that name."""
    other = table.get(name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"{kind} name {name!r} is taken by {other.__module__}.{other.__qualname__}: choose another")
    cls.name = name
    table[name] = cls


def load_plugins(group: str) -> tuple[Broken, ...]:
    """Import every entry point of `group`; those that fail come back with their reasons."""
    broken = []
    for point in entry_points(group=group):
        try:
            point.load()
        except (Exception, SystemExit) as error:  # a stranger's code: whatever it raises is its reason
            broken.append(Broken(point.name, f"{type(error).__name__}: {error}"))
    return tuple(broken)


@cache
def _load() -> tuple[Broken, ...]:
    """Import every file of `worlds/` and every entry point of group gumdrop.worlds, once."""
    from . import worlds

    for module in pkgutil.iter_modules(worlds.__path__):
        importlib.import_module(f"{worlds.__name__}.{module.name}")
    return load_plugins("gumdrop.worlds")


def worlds() -> dict[str, type[World]]:
    """All registered worlds by name."""
    _load()
    return dict(sorted(_WORLDS.items()))


def presets() -> dict[str, tuple[type[World], Preset]]:
    """All named settings of worlds by id: the world, and what the setting is."""
    _load()
    return dict(sorted(_PRESETS.items()))


def broken_plugins() -> tuple[Broken, ...]:
    return _load()


def suggest(name: str, known: list[str]) -> str:
    """': did you mean X?' or the known names."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else f": known are {', '.join(known)}"


def is_foreign(id: str) -> bool:
    """True for ids of foreign environments: `Name-v1`, `namespace/Name-v1`, `module:Id`, `module:function`."""
    return not id.startswith("gumdrop/") and (":" in id or "/" in id or id.rpartition("-v")[2].isdigit())


def make_world(id: str, config: dict[str, Any] | None = None) -> World:
    """The world or preset registered as `id`, configured; options go before the preset's own.

    Raises UnknownName, or ValueError with one line for the first bad option.
    """
    from . import gym_id

    known, named = worlds(), presets()
    ids = [*known, *named]
    id = {gym_id(name): name for name in ids}.get(id, id)  # gumdrop/Candy-v0 is candy
    if id not in ids:
        for plugin in broken_plugins():
            if id in (plugin.name, gym_id(plugin.name)):
                raise UnknownName(f"world {plugin.name!r} comes from a plugin that could not be loaded: {plugin.reason}")
        raise UnknownName(f"no world {id!r}{suggest(id, ids)}")
    cls, preset = (known[id], Preset("", {})) if id in known else named[id]
    try:
        return cls(cls.Config(**(preset.options | (config or {}))))
    except pydantic.ValidationError as error:
        raise ValueError(explain(error, f"world {id}", list(cls.Config.model_fields))) from None


def explain(error: pydantic.ValidationError, what: str, known: list[str]) -> str:
    """One line for the first fault that pydantic found."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{what} has no option {key!r}{suggest(key.rpartition('.')[2], known)}"
    message = first["msg"].removeprefix("Value error, ")
    got = f" (got {first['input']!r:.80})" if key else ""  # of a rule about several options, the message names them
    return f"{what}: {key + ': ' if key else ''}{message[0].lower()}{message[1:]}{got}"


def make(
    id: str,
    config: dict[str, Any] | None = None,
    num_envs: int = 1,
    seed: int = 0,
    threads: int | None = None,
    workers: int | None = None,
    timeout: float | None = None,
    device: str = "cpu",
) -> BatchEnv:
    """N copies of the environment `id`: one of our worlds, or a foreign one (`CartPole-v1`, `module:Id`, `module:function`).

    `workers` and `timeout` are for foreign ones: `ForeignBatch` explains them. They may stand in `config` instead.
    `device` "cuda" steps one of our worlds on a GPU, with the same results. Raises ValueError where there is none.
    """
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}{suggest(device, list(DEVICES))}")
    if device != "cpu" and is_foreign(id):
        raise ValueError(f"environment {id} is not ours and runs on the CPU only: take device 'cpu'")
    if is_foreign(id):
        from .foreign import ForeignBatch

        return ForeignBatch(id, config or {}, num_envs=num_envs, seed=seed, workers=workers, timeout=timeout)
    if workers or timeout:
        raise ValueError(f"world {id} runs in threads of this process: leave out workers and timeout")
    world = make_world(id, config)
    if device == "cuda":
        from .cuda import CudaEngine

        return CudaEngine(world, num_envs=num_envs, seed=seed, id=id)
    from .engine import Engine

    return Engine(world, num_envs=num_envs, seed=seed, threads=threads, id=id)
