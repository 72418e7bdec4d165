"""The register of components: what can fill each slot of an agent, by name. `SLOTS` is the one list of slots.

A component is a class with `Config`, a ComponentConfig, that follows the protocol of its slot. A file in the slot's folder, or
any file outside the package that is imported (`--plugin FILE`, entry-point group gumdrop.components), registers it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

C = TypeVar("C", bound=type[Any])


class ComponentConfig(BaseModel):
    """Options of a component. Subclass it; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Part(BaseModel):
    """What an agent's options say of a component in a slot. Keys that are not fields are the component's own options."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str = Field(description="name of the component")
    untrained: bool = Field(False, description="never train it: shows what its training contributes")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EncoderPart(Part):
    """An encoder, trained beside the policy on the policy's observations."""

    updates: int = Field(16, ge=0, le=10_000, description="training steps of the encoder after each rollout")
    batch: int = Field(256, ge=2, le=1_000_000, description="observations in each of these steps")
    freeze_after: float = Field(0.5, ge=0, le=1, description="share of the training after which its parameters stay fixed")


class BeliefPart(Part):
    """A belief, trained with the policy."""

    actions: bool = Field(True, description="the previous action is an input, too")
    freeze_after: float = Field(0.5, ge=0, le=1, description="share of the training after which an hmm stays fixed")


class BonusPart(Part):
    """A bonus that is added to the reward."""

    weight: float = Field(1.0, ge=-1e6, le=1e6, description="of the bonus in the sum of rewards")


class ModelPart(Part):
    """A world model, trained on stored steps."""


class DetectorPart(Part):
    """A detector of episodes that differ from those it was trained on."""


class Slot(NamedTuple):
    """A slot of an agent: where its components are, what they follow, what options say of them."""

    folder: str  # below core_ml; its files are scanned for components, its `protocol.py` holds `protocol`
    protocol: str
    part: type[Part]


SLOTS = {
    "encoder": Slot("encoders", "Encoder", EncoderPart),
    "belief": Slot("beliefs", "Belief", BeliefPart),
    "bonus": Slot("rewards", "Bonus", BonusPart),
    "model": Slot("models", "WorldModel", ModelPart),
    "detector": Slot("detectors", "Detector", DetectorPart),
}


class Component(NamedTuple):
    """An entry of the register: what fills `slot` under a name."""

    slot: str
    cls: type[Any]  # has `Config`
    fixed: dict[str, Any]  # options that the name stands for, such as cell="gru"


_COMPONENTS: dict[tuple[str, str], Component] = {}


def component(slot: str, name: str, **fixed: Any) -> Callable[[C], C]:
    """Class decorator: register a component. One class may have several names, each with options of its own.

    Raises ValueError for a slot that does not exist, and where another class has the name.
    """
    if slot not in SLOTS:
        near = difflib.get_close_matches(slot, SLOTS, n=1, cutoff=0.5)
        raise ValueError(f"no slot {slot!r}: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(SLOTS)}"))

    def register(cls: C) -> C:
        taken = _COMPONENTS.get((slot, name))
        if taken and (taken.cls.__module__, taken.cls.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"{slot} {name!r} is {taken.cls.__qualname__} of {taken.cls.__module__}: choose another name")
        _COMPONENTS[slot, name] = Component(slot, cls, fixed)
        return cls

    return register


@cache
def _load(slot: str) -> None:
    package = importlib.import_module(f"{__package__}.{SLOTS[slot].folder}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def components(slot: str) -> dict[str, Component]:
    """All that can fill `slot`, by name. Imports every file of the slot's folder, and with them torch."""
    _load(slot)
    return {name: entry for (kind, name), entry in sorted(_COMPONENTS.items()) if kind == slot}


def protocol_of(slot: str) -> type[Any]:
    """The protocol that every component of `slot` follows."""
    found: type[Any] = getattr(importlib.import_module(f"{__package__}.{SLOTS[slot].folder}.protocol"), SLOTS[slot].protocol)
    return found
