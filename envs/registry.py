"""Names of worlds: `@world("candy")`, the folder scan, plugins, `make`, and "did you mean"."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import pydantic

from ..configs.suggest import suggest
from .gym_ids import gym_id, register_ids
from .names import PluginError, UnknownName, claim, explain, load_plugins
from .world import Preset, World

W = TypeVar("W", bound=type[World])
_WORLDS: dict[str, type[World]] = {}
_PRESETS: dict[str, tuple[type[World], Preset]] = {}


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
        register_ids([name, *cls.presets])  # plugins' worlds, too, have a Gymnasium id from here on
        return cls

    return register


@cache
def _load() -> tuple[PluginError, ...]:
    """Import every file of `worlds/` and every entry point of group gumdrop.worlds, once."""
    package = importlib.import_module(f"{__package__}.worlds")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return load_plugins("gumdrop.worlds")


def worlds() -> dict[str, type[World]]:
    """All registered worlds by name."""
    _load()
    return dict(sorted(_WORLDS.items()))


def presets() -> dict[str, tuple[type[World], Preset]]:
    """All named settings of worlds by id: the world, and what the setting is."""
    _load()
    return dict(sorted(_PRESETS.items()))


def plugin_errors() -> tuple[PluginError, ...]:
    return _load()


def make_world(id: str, config: dict[str, Any] | None = None) -> World:
    """The world or preset registered as `id`, configured; options go before the preset's own.

    Raises UnknownName, or ValueError with one line for the first bad option.
    """
    known, named = worlds(), presets()
    ids = [*known, *named]
    id = {gym_id(name): name for name in ids}.get(id, id)  # gumdrop/Candy-v0 is candy
    if id not in ids:
        for plugin in plugin_errors():
            if id in (plugin.name, gym_id(plugin.name)):
                raise UnknownName(f"world {plugin.name!r} comes from a plugin that could not be loaded: {plugin.reason}")
        raise UnknownName(f"no world {id!r}{suggest(id, ids)}")
    cls, preset = (known[id], Preset("", {})) if id in known else named[id]
    try:
        return cls(cls.Config(**(preset.options | (config or {}))))
    except pydantic.ValidationError as error:
        raise ValueError(explain(error, f"world {id}", list(cls.Config.model_fields))) from None
