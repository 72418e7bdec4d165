"""Agents: the protocol that the runtime drives, the register of algorithms, and the algorithms, one a file.

`gumdrop.agents` is a package and, as part of the public interface, a function: `gd.agents()` gives the names of all agents,
each with a line about it.

>>> gd.agents()["random"]
'Actions drawn uniformly from the action space, an unbounded Box cut at 1,000. Learns nothing.'
"""

from __future__ import annotations

import sys
from types import ModuleType


def agents_by_name() -> dict[str, str]:
    """Names of all agents, each with the first line about it."""
    from .registry import agents

    return {name: (cls.__doc__ or "").strip().partition("\n")[0] for name, cls in agents().items()}


class _Callable(ModuleType):
    """A module that is a function, too."""

    def __call__(self) -> dict[str, str]:
        return agents_by_name()


sys.modules[__name__].__class__ = _Callable
