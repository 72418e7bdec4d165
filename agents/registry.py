"""The register of algorithms: `@agent("name")`, the scan of the folders, plugins, and `make_agent`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import pydantic

from ..configs.suggest import suggest
from ..envs.batch import BatchEnv
from ..envs.names import PluginError, UnknownName, claim, explain, load_plugins
from .protocol import Agent, AgentConfig, ChoosesLeaderboard, ListsDevices, Spaces, TakesMasks

C = TypeVar("C", bound=type[Any])


_AGENTS: dict[str, type[Any]] = {}
NO_FAMILIES = (f"{__package__}.slots",)  # folders that hold no algorithms


def agent(name: str) -> Callable[[C], C]:
    """Class decorator: register an algorithm. The class has `Config` and `__init__(config, spaces, seed, threads)`."""

    def register(cls: C) -> C:
        claim(_AGENTS, "agent", name, cls)
        return cls

    return register


@cache
def _load() -> tuple[PluginError, ...]:
    """Import what may hold algorithms, once: every file of this folder and of its families (`deep/`, `tabular/`, ...), the
    file `agent.py` of a family's sub-folders, and every entry point of group gumdrop.agents."""
    root = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(root.__path__, f"{__package__}."):
        family = importlib.import_module(module.name)
        if not module.ispkg or module.name in NO_FAMILIES:
            continue
        for member in pkgutil.iter_modules(family.__path__, f"{module.name}."):
            if member.name.rpartition(".")[2].startswith("_"):  # no algorithm, and it may import what is slow to import
                continue
            importlib.import_module(f"{member.name}.agent" if member.ispkg else member.name)
    return load_plugins("gumdrop.agents")


def agents() -> dict[str, type[Any]]:
    """All registered algorithms by name. Importing them does not import torch."""
    _load()
    return dict(sorted(_AGENTS.items()))


def plugin_errors() -> tuple[PluginError, ...]:
    return _load()


def devices_of(cls: type[Any]) -> tuple[str, ...]:
    """The devices that an algorithm's class can work on."""
    return cls.devices if isinstance(cls, ListsDevices) else ("cpu",)


def takes_masks(cls: type[Any]) -> bool:
    """Whether the algorithm's agents use action masks."""
    return cls.masks if isinstance(cls, TakesMasks) else False


def in_leaderboard(cls: type[Any]) -> bool:
    """Whether a leaderboard trains the algorithm without being asked for it by name."""
    return cls.in_leaderboard if isinstance(cls, ChoosesLeaderboard) else True


def agent_config(name: str, options: dict[str, Any]) -> AgentConfig:
    """The configuration of algorithm `name`. Raises UnknownName, or ValueError with one line for the first fault."""
    known = agents()
    if name not in known:
        raise UnknownName(f"no agent {name!r}{suggest(name, list(known))}")
    cls = known[name].Config
    try:
        config: AgentConfig = cls(**options)
    except pydantic.ValidationError as error:
        raise ValueError(explain(error, f"agent {name}", list(cls.model_fields))) from None
    return config


def make_agent(name: str, options: dict[str, Any], env: BatchEnv, seed: int, threads: int = 1, device: str = "cpu") -> Agent:
    """An untrained agent for `env`; all its randomness comes from `seed`. It may work on `threads` threads.

    Raises ValueError where it cannot work on `device`.
    """
    config, cls = agent_config(name, options), agents()[name]
    if device not in devices_of(cls):
        raise ValueError(f"agent {name} cannot work on device {device!r}: take device=cpu")
    elsewhere = {} if device == "cpu" else {"device": device}
    spaces = Spaces.of(env)
    if spaces.masked and not takes_masks(cls):
        way_out = "take ppo, dqn or q-learning" + ("" if spaces.world else ", or env.action_mask=false to ignore them")
        raise ValueError(f"agent {name}: it cannot use the action masks of {env.id}: {way_out}")
    made: Agent = cls(config, spaces, seed, threads, **elsewhere)
    return made
