"""What the components of an agent share: how they take options, and the register of them by slot and name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

Slot = Literal["encoder", "belief", "detector", "bonus", "model"]
FOLDERS: dict[Slot, str] = {  # the folder of each slot's components: here a new slot is added
    "encoder": "encoders", "belief": "beliefs", "detector": "detectors", "bonus": "rewards", "model": "models",
}  # fmt: skip
C = TypeVar("C", bound=type[Any])


class ComponentConfig(BaseModel):
    """Options of a component. Subclass it; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(NamedTuple):
    """An entry of the register: what fills `slot` under a name."""

    slot: Slot
    cls: type[Any]  # has `Config`
    fixed: dict[str, Any]  # options that the name stands for, such as cell="gru"


_COMPONENTS: dict[tuple[Slot, str], Component] = {}


def component(slot: Slot, name: str, **fixed: Any) -> Callable[[C], C]:
    """Class decorator: register a component. One class may stand under several names, each with options of its own.

    The class has `Config` and `__init__(config, ..., seed)` as the others of its slot have. Raises ValueError where the name is
    taken by another class.
    """

    def register(cls: C) -> C:
        taken = _COMPONENTS.get((slot, name))
        if taken and (taken.cls.__module__, taken.cls.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{slot} {name!r} is {taken.cls.__qualname__} of {taken.cls.__module__}: choose another name")
        _COMPONENTS[slot, name] = Component(slot, cls, fixed)
        return cls

    return register


@cache
def _load(slot: Slot) -> None:
    package = importlib.import_module(f"{__package__}.{FOLDERS[slot]}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def components(slot: Slot) -> dict[str, Component]:
    """All that can fill `slot`, by name. Imports every file of the slot's folder, and with them torch."""
    _load(slot)
    return {name: entry for (kind, name), entry in sorted(_COMPONENTS.items()) if kind == slot}
